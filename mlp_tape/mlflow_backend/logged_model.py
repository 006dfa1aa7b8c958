"""The trained network as an MLflow model, made of the files in the run's directory."""

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from mlp_tape.storage import run_paths
from mlp_tape.storage.journal import Row
from mlp_tape.system import atomic_files

NAME = "model"


def log(
    client: mlflow.MlflowClient, run: Run, directory: Path, results: list[Row], register_as: str = ""
) -> None:
    """Logs it so that `runs:/RUN_ID/model` loads it; once, also where it is asked for again.

    Args:
        client: of the store.
        run: whose model it is.
        directory: of the run, with `weights.npz`, `network.json` and the examples in `report.npz`.
        results: the last value of each metric that is the model's, already delivered.
        register_as: the name under which it is registered, too; empty for none.
    """
    experiment_id, run_id = run.info.experiment_id, run.info.run_id
    step = results[-1].step if results else 0
    mine = f"source_run_id = '{run_id}' AND name = '{NAME}'"
    for earlier in client.search_logged_models([experiment_id], filter_string=mine):
        if earlier.status != LoggedModelStatus.READY:  # of a process that was killed here
            client.delete_logged_model(earlier.model_id)
        elif earlier.tags.get("step") == str(step):
            version = register(client, register_as, earlier.artifact_location, run_id, earlier.model_id)
            _note(directory, earlier, register_as, version)
            return
    logged = client.create_logged_model(experiment_id, NAME, source_run_id=run_id, tags={"step": str(step)})
    archives = {"weights": directory / run_paths.WEIGHTS, "network": directory / run_paths.NETWORK}
    network = json.loads(archives["network"].read_bytes())
    inputs = TensorSpec(np.dtype(network["dtype"]), (-1, *network["shape"]))
    scores = TensorSpec(np.dtype("float32"), (-1, network["n_classes"]))
    with np.load(directory / run_paths.PLOT_DATA, allow_pickle=False) as archive:
        examples = archive["examples"]
    with tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            f"{parent}/model",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={name: str(file) for name, file in archives.items()},
            input_example=examples,
            signature=ModelSignature(Schema([inputs]), Schema([scores])),
            pip_requirements=[f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}"],
            mlflow_model=Model(run_id=run_id, model_id=logged.model_id),
        )
        client.log_model_artifacts(logged.model_id, f"{parent}/model")
    _finish(client, run_id, logged.model_id, results, step)
    version = register(client, register_as, logged.artifact_location, run_id, logged.model_id)
    _note(directory, logged, register_as, version)


def restore(
    client: mlflow.MlflowClient,
    run: Run,
    noted: dict[str, Any],
    results: list[Row],
    exchange: Callable[[str], None],
) -> None:
    """Logs a model again whose files are where they were; it keeps its id.

    Args:
        client: of the store, which has no model of that id.
        run: whose model it is.
        noted: what `read` gives of it.
        results: the metrics that are the model's.
        exchange: gives a model of the store, by its id, the id and the location that were noted.
    """
    tags = {"step": str(noted["step"])}
    drawn = client.create_logged_model(run.info.experiment_id, NAME, source_run_id=run.info.run_id, tags=tags)
    exchange(drawn.model_id)
    _finish(client, run.info.run_id, noted["model_id"], results, noted["step"])


def read(directory: Path) -> list[dict[str, Any]]:
    """What was logged as models of a run, the first one coming first.

    Returns:
        Of each the `model_id`, `step` and `location` of the files, and the `name` and `version` by which it
        is registered; empty and 0 where it is not.
    """
    keys = ("model_id", "step", "location", "name", "version")
    try:
        return [
            {key: each[key] for key in keys}
            for each in json.loads((directory / run_paths.LOGGED_MODELS).read_bytes())
        ]
    except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
        return []


def register(client: mlflow.MlflowClient, name: str, location: str, run_id: str, model_id: str) -> int:
    """Makes a model the next version of a registered one, if a name is given, and if it is none yet.

    Returns:
        The version; 0 without a name.
    """
    if not name:
        return 0
    try:
        client.create_registered_model(name)
    except MlflowException:  # it is there, perhaps because of an attempt that was reported as failed
        client.get_registered_model(name)
    for version in client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'"):
        if version.source in (location, f"models:/{model_id}"):
            return int(version.version)
    # By its location: MLflow looks `models:/ID` up in the store of the environment, not of the client.
    return int(client.create_model_version(name, location, run_id, model_id=model_id).version)


def _finish(client: mlflow.MlflowClient, run_id: str, model_id: str, results: list[Row], step: int) -> None:
    """Makes a model whose files are in place the output of its run, with its metrics."""
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    metrics = [
        Metric(row.key, row.value, row.timestamp, row.step, model_id, run_id=run_id) for row in results
    ]
    client.log_batch(run_id, metrics=metrics)
    client.finalize_logged_model(model_id, "READY")  # what is not READY is made anew


def _note(directory: Path, model: LoggedModel, name: str, version: int) -> None:
    """Writes down what was logged, in place of what was noted of the same step."""
    step = int(model.tags["step"])
    new = {
        "model_id": model.model_id,
        "step": step,
        "location": model.artifact_location,
        "name": name,
        "version": version,
    }
    noted = [*(each for each in read(directory) if each["step"] != step), new]
    atomic_files.write(directory / run_paths.LOGGED_MODELS, json.dumps(noted, indent=1).encode())
