"""The run in MLflow: opened, fed from the journal by a thread of its own, and closed with its true status."""

import contextlib
import logging
import os
import shlex
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from mlp_tape.config import TrackingSettings, without_password
from mlp_tape.errors import TrackingError
from mlp_tape.journal import Journal

# Read by MLflow when it is imported, or at each request.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds

import filelock
import mlflow
import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

BATCH = 1_000  # rows a request: the most that MLflow takes
PAUSE = 1.0  # seconds between two looks into the journal
LONGEST_PAUSE = 30.0  # seconds between two tries while the store does not answer
AT_THE_END = 60.0  # seconds to deliver what is left when the run is over

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.ERROR)


class Tracker(Protocol):
    """Where a run is recorded."""

    link: str

    def artifact(self, path: Path, directory: str | None = None) -> None:
        """Keeps a file."""

    def model(self, files: dict[str, Path], example: NDArray[Any], n_classes: int, step: int) -> None:
        """Keeps the trained network in a form that can be loaded and served."""


class Untracked:
    """The tracker of `tracking.enabled=false`: the run's own directory has to do."""

    link = ""

    def artifact(self, path: Path, directory: str | None = None) -> None:
        """Does nothing."""

    def model(self, files: dict[str, Path], example: NDArray[Any], n_classes: int, step: int) -> None:
        """Does nothing."""


class MlflowRun:
    """One run in an MLflow store.

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
                mlflow.set_tracking_uri(uri)
                self.experiment_id = self._experiment(experiment)
            self.run_id = self._client.create_run(self.experiment_id, run_name=name).info.run_id
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrackingError(
                without_password(f"MLflow at {uri} cannot be opened: {first}"),
                "start it, or give tracking.uri=... or tracking.enabled=false",
            ) from error
        server = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
        self.link = without_password(
            f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}/model-metrics"
            "?workflowType=machine_learning"  # without it, the page stands in the UI's GenAI half
        )
        self._delivery = _Delivery(self._client, self.run_id, journal)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        try:
            # The tag makes the UI open the experiment in its view of training runs.
            return str(
                self._client.create_experiment(
                    name, tags={"mlflow.experimentKind": "custom_model_development"}
                )
            )
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

    def model(self, files: dict[str, Path], example: NDArray[Any], n_classes: int, step: int) -> None:
        """Logs the trained network as the MLflow model `model`.

        Args:
            files: what `serving.py` reads, by the name that it knows it under.
            example: some images, [n, ...], of the dtype and shape that the model takes.
            n_classes: the number of scores.
            step: the last global step.
        """
        mlflow.set_experiment(experiment_id=self.experiment_id)
        inputs = TensorSpec(example.dtype, (-1, *example.shape[1:]))
        scores = TensorSpec(np.dtype("float32"), (-1, n_classes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Model.log(
                artifact_path=None,
                name="model",
                flavor=mlflow.pyfunc,
                run_id=self.run_id,
                step=step,
                python_model=str(Path(__file__).with_name("serving.py")),
                artifacts={name: str(file) for name, file in files.items()},
                signature=ModelSignature(Schema([inputs]), Schema([scores])),
                pip_requirements=[f"mlflow=={mlflow.__version__}", "numpy"],
            )

    def close(self, status: str, reason: str = "") -> None:
        """Delivers what is left and sets the status: FINISHED, FAILED or KILLED."""
        try:
            self._delivery.finish(AT_THE_END)
        finally:
            if reason:
                self._client.set_tag(self.run_id, "reason", without_password(reason)[:5000])
            self._client.set_terminated(self.run_id, status)


def _alone(uri: str) -> contextlib.AbstractContextManager[Any]:
    """Lets one process at a time open a sqlite store: several that make its tables together fail."""
    if not uri.startswith("sqlite:///"):
        return contextlib.nullcontext()
    return filelock.FileLock(f"{uri.removeprefix('sqlite:///')}.lock", timeout=60)


class _Delivery(threading.Thread):
    """Sends the journal's rows to MLflow, in batches, and tries again where that fails."""

    def __init__(self, client: mlflow.MlflowClient, run_id: str, journal: Journal) -> None:
        super().__init__(name="mlflow-delivery", daemon=True)
        self._client, self._run_id, self._journal = client, run_id, journal
        self._over = threading.Event()
        self._deadline = float("inf")
        self._error: Exception | None = None

    def run(self) -> None:
        pause = PAUSE
        while True:
            over = self._over.is_set()  # asked before the look, so that no row can come after the last look
            rows, position = self._journal.unsent(BATCH)
            if rows:
                try:
                    metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in rows]
                    self._client.log_batch(self._run_id, metrics=metrics)
                except Exception as error:
                    self._error = error
                    if time.monotonic() + pause > self._deadline:
                        return
                    time.sleep(pause) if over else self._over.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                else:
                    self._journal.acknowledge(position)
                    self._error, pause = None, PAUSE
            elif over:
                return
            else:
                self._over.wait(PAUSE)

    def finish(self, seconds: float) -> None:
        """Waits until all is delivered, at most so long.

        Raises:
            TrackingError: some rows were not; they are in the journal.
        """
        if not self.is_alive():
            return
        self._deadline = time.monotonic() + seconds
        self._over.set()
        self.join(seconds)
        if self.is_alive() or self._error:
            raise TrackingError(
                without_password(f"MLflow did not take the last rows: {self._error or 'no answer'}"),
                f"they are kept in {self._journal.path}",
            )


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
) -> Iterator[Tracker]:
    """Opens a run and closes it as what it was: FINISHED, FAILED on an error, KILLED when stopped."""
    if not settings.enabled:
        yield Untracked()
        return
    run = MlflowRun(settings.uri or default_uri(), settings.experiment, journal, name)
    try:
        run.begin(params, tags)
        yield run
    except Exception as error:
        run.close("FAILED", reason=f"{type(error).__name__}: {error}")
        raise
    except BaseException as stop:  # Ctrl-C, SIGTERM
        run.close("KILLED", reason=type(stop).__name__)
        raise
    run.close("FINISHED")
