"""Check of everything that a run needs of MLflow: `python -m mlp_tape doctor`."""

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Experiment
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlp_tape.errors import MlpTapeError
from mlp_tape.mlflow_backend import failures, relocation, store
from mlp_tape.mlflow_backend.uploads import Uploads
from mlp_tape.system import program
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import CHECK_SECONDS, check_reachable, may_exist

Say = Callable[[str], None]
DEFAULT = "0"  # id of the experiment that every store has


def diagnose(uri: str, experiment: str, say: Say) -> bool:
    """Tries the tracking store and the artifact store as a run would, with a file that is deleted again.

    Args:
        uri: URI of the store.
        experiment: name of the experiment, which need not exist.
        say: called with a line about each check.

    Returns:
        Whether nothing is wrong.
    """
    say(f"mlflow        {mlflow.__version__}")
    say(f"tracking      {without_password(uri)}")
    try:
        check_reachable(uri, CHECK_SECONDS)
        if not may_exist(uri):
            say("              does not exist yet; the first run creates it, with mlruns/ next to it")
            return True
        found = store.ask(uri, lambda client: _experiment(client, experiment))
        say(
            f"experiment    {experiment}{'' if found.name == experiment else ', which the first run creates'}"
        )
        location = str(found.artifact_location)
        say(f"artifacts     {without_password(location)}")
        relocation.check(uri, location)
        _try_to_write(uri, location)
    except MlpTapeError as error:
        say(f"error         {error.what}")
        say(f"              {error.hint}")
        return False
    say("all is well: a file was written there and deleted again")
    return True


def _experiment(client: mlflow.MlflowClient, name: str) -> Experiment:
    return client.get_experiment_by_name(name) or client.get_experiment(DEFAULT)


def _try_to_write(uri: str, location: str) -> None:
    """Uploads a small file and deletes it; raises IncompleteError if that is not possible."""
    name, uploads = f"mlp_tape-doctor-{secrets.token_hex(4)}", Uploads()
    with tempfile.TemporaryDirectory() as parent:
        file = Path(parent, name)
        file.write_text(f"written by {program.tool()} doctor\n")

        def upload() -> None:
            repository: Any = get_artifact_repository(location, tracking_uri=uri)
            repository.log_artifact(str(file))
            repository.delete_artifacts(name)

        try:
            for _ in uploads.run(name, upload):
                pass
        except Exception as error:
            raise failures.of_files("a file", location, error) from error
