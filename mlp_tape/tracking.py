"""The run in MLflow: opened, fed from the journal by a thread of its own, and closed with its true status."""

import contextlib
import logging
import os
import shlex
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlp_tape import stop
from mlp_tape.config import TrackingSettings
from mlp_tape.delivery import Delivery
from mlp_tape.errors import TrackingError
from mlp_tape.journal import Journal, Row
from mlp_tape.redact import without_password

# Read by MLflow when it is imported, or at each request.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds

import filelock
import mlflow.pyfunc
import numpy as np
from mlflow.entities import LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

AT_THE_END = 60.0  # seconds to deliver what is left when the run is over

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.ERROR)


class MlflowRun:
    """One run in an MLflow store; a Tracker.

    Args:
        uri: of the store.
        experiment: its name; made if it is not there.
        journal: whose rows are delivered while the run lasts.
        name: shown in the UI; None lets MLflow make one up.

    Raises:
        TrackingError: the store cannot be opened.
    """

    def __init__(self, uri: str, experiment: str, journal: Journal, name: str | None = None) -> None:
        try:
            with _alone(uri):
                self._client = mlflow.MlflowClient(uri)
                self.experiment_id = self._experiment(experiment)
            self.run_id = self._client.create_run(self.experiment_id, run_name=name).info.run_id
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrackingError(
                without_password(f"MLflow at {uri} cannot be opened: {first}"),
                "start it, or give tracking.uri=... or tracking.enabled=false",
            ) from error
        server = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
        self.link = (
            f"{without_password(server, instead='')}/#/experiments/{self.experiment_id}"
            f"/runs/{self.run_id}/model-metrics"
            "?workflowType=machine_learning"  # without it, the page stands in the UI's GenAI half
        )
        self._delivery = Delivery(journal, self._send)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:
            made_meanwhile = self._client.get_experiment_by_name(name)
            if made_meanwhile is None:
                raise
            return str(made_meanwhile.experiment_id)

    def begin(self, params: dict[str, Any], tags: dict[str, str]) -> None:
        """Records settings and tags, and starts to deliver the journal."""
        self._client.log_batch(
            self.run_id,
            params=[Param(key, str(value)) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        self._delivery.start()

    def artifact(self, path: Path, directory: str | None = None) -> None:
        """Keeps a file with the run, in a directory of its artifacts."""
        self._client.log_artifact(self.run_id, str(path), directory)

    def model(
        self, files: dict[str, Path], example: NDArray[Any], n_classes: int, results: list[Row]
    ) -> None:
        """Logs the trained network as the MLflow model `model`, so that `runs:/RUN_ID/model` loads it.

        Args:
            files: what `serving.py` reads, by the name that it knows it under.
            example: some images, [n, ...], of the dtype and shape that the model takes.
            n_classes: the number of scores.
            results: the metrics that are the model's, already journalled.
        """
        step = results[-1].step
        logged = self._client.create_logged_model(self.experiment_id, "model", source_run_id=self.run_id)
        inputs = TensorSpec(example.dtype, (-1, *example.shape[1:]))
        scores = TensorSpec(np.dtype("float32"), (-1, n_classes))
        with tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # proposes an input example that MLflow would then run
            mlflow.pyfunc.save_model(
                f"{parent}/model",
                python_model=str(Path(__file__).with_name("serving.py")),
                artifacts={name: str(file) for name, file in files.items()},
                signature=ModelSignature(Schema([inputs]), Schema([scores])),
                pip_requirements=[f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}"],
                mlflow_model=Model(run_id=self.run_id, model_id=logged.model_id),
            )
            self._client.log_model_artifacts(logged.model_id, f"{parent}/model")
        self._client.finalize_logged_model(logged.model_id, "READY")
        self._client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step)])
        metrics = [
            Metric(row.key, row.value, row.timestamp, row.step, logged.model_id, run_id=self.run_id)
            for row in results
        ]
        self._client.log_batch(self.run_id, metrics=metrics)

    def _send(self, rows: list[Row]) -> None:
        metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in rows]
        self._client.log_batch(self.run_id, metrics=metrics)

    def close(self, status: str, reason: str = "") -> None:
        """Delivers what is left and sets the status: FINISHED, FAILED or KILLED."""
        try:
            undelivered = self._delivery.finish(AT_THE_END)
            if undelivered:
                raise TrackingError(
                    without_password(f"MLflow did not take the last rows: {undelivered}"),
                    "they are kept in journal.jsonl in the run's directory",
                )
        finally:
            if reason:
                self._client.set_tag(self.run_id, "reason", without_password(reason)[:5000])
            self._client.set_terminated(self.run_id, status)


def _alone(uri: str) -> contextlib.AbstractContextManager[Any]:
    """Lets one process at a time open a sqlite store: several that make its tables together fail."""
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not file.parent.is_dir():
        return contextlib.nullcontext()
    return filelock.FileLock(f"{file}.lock", timeout=60)


def default_uri() -> str:
    """MLFLOW_TRACKING_URI, else sqlite in `mlflow.db` of the current directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def how_to_open(settings: TrackingSettings) -> str:
    """What to type so that the run's link answers."""
    uri = settings.uri or default_uri()
    if uri.startswith("http"):
        return "open the link; the server is there already"
    if uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}":
        return "mlflow ui, then open the link"
    return f"mlflow ui --backend-store-uri {shlex.quote(without_password(uri))}, then open the link"


@contextlib.contextmanager
def open_run(
    settings: TrackingSettings,
    journal: Journal,
    name: str | None,
    params: dict[str, Any],
    tags: dict[str, str],
) -> Iterator[MlflowRun]:
    """Opens a run and closes it as what it was: FINISHED, FAILED on an error, KILLED when stopped."""
    run = MlflowRun(settings.uri or default_uri(), settings.experiment, journal, name)
    try:
        run.begin(params, tags)
        yield run
    except BaseException as error:
        run.close(*_ended_by(error))
        raise
    run.close("FINISHED")


def _ended_by(error: BaseException) -> tuple[str, str]:
    """The status and the reason of a run that did not reach its end."""
    if stop.asked() or isinstance(error, KeyboardInterrupt):
        return "KILLED", (stop.asked() or signal.SIGINT).name
    return "FAILED", f"{type(error).__name__}: {error}"
