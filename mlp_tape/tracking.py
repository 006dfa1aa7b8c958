"""The run in MLflow: opened or gone on with, fed from the journal, and closed with its true status."""

import contextlib
import functools
import logging
import os
import platform
import shlex
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from mlp_tape import address, delivery, provenance, record
from mlp_tape.delivery import Delivery
from mlp_tape.errors import TrackingError
from mlp_tape.journal import Journal, Row
from mlp_tape.record import Record
from mlp_tape.redact import without_password
from mlp_tape.tracker import Show

# Read by MLflow when it is imported, or at each request.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds

import filelock
import mlflow
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong, they raise too

GIVEN = ("config.yaml", "environment.txt")  # before the first step
LEFT = ("weights.npz", "sweep.csv", "sweep.md")  # by a run, and by a sweep
RESULTS = ("test/loss", "test/accuracy")  # are the model's, too


class MlflowRun:
    """One run in an MLflow store; a Tracker.

    Args:
        client: of the store.
        uri: of the store.
        run: as MLflow has it.
        journal: whose rows are delivered.
    """

    def __init__(self, client: mlflow.MlflowClient, uri: str, run: Run, journal: Journal) -> None:
        self._client, self._uri, self._run, self._journal = client, uri, run, journal
        self.run_id: str = run.info.run_id
        self.link = address.link(uri, run.info.experiment_id, self.run_id)
        self.overview = address.link(uri, run.info.experiment_id, self.run_id, tab="")
        self._delivery = Delivery(journal, self._send)

    def begin(self, record: Record) -> None:
        """As `Tracker.begin`; a new run, whose store has just answered, is told by the thread."""
        begin = functools.partial(self._begin, record)
        if self._run.data.params:
            with _opening(self._uri):
                begin()
            self._delivery.start()
        else:
            self._delivery.start(begin)

    def _begin(self, record: Record) -> None:
        new = {key: value for key, value in record.params.items() if key not in self._run.data.params}
        tags = provenance.process(record.directory) | {"command": provenance.command(record.overrides)}
        self._client.log_batch(
            self.run_id,
            params=[Param(key, value) for key, value in new.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        if self._run.info.status != "RUNNING":
            self._client.update_run(self.run_id, status="RUNNING")
        if "reason" in self._run.data.tags:
            self._client.delete_tag(self.run_id, "reason")
        for name in GIVEN:
            self._client.log_artifact(self.run_id, str(record.directory / name))

    def close(self, record: Record, patience: float, at_most: float, show: Show) -> str:
        """As `Tracker.close`."""
        end = functools.partial(_end, self._client, self.run_id, record)
        if self._delivery.ident is None and not set(record.params) <= set(self._run.data.params):
            self._delivery.start(functools.partial(self._begin, record))  # its process did not get so far
        jobs = [functools.partial(self._artifact, *found) for found in _artifacts(record)]
        if record.status == "FINISHED" and record.kind == "run" and record.full:
            jobs.append(functools.partial(self._model, record.directory))
        killed = record.status == "KILLED"  # by somebody who waits: first of all, this is said
        first, last = ([end], jobs) if killed else ([], [*jobs, end])
        return without_password(self._delivery.finish(first, last, patience, at_most, show))

    def _send(self, rows: list[Row]) -> None:
        metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in rows]
        self._client.log_batch(self.run_id, metrics=metrics)

    def _artifact(self, path: Path, directory: str | None) -> None:
        self._client.log_artifact(self.run_id, str(path), directory)

    def _model(self, directory: Path) -> None:
        from mlp_tape import logged_model

        last = [row for key in RESULTS for row in deque(self._journal.read(key), maxlen=1)]
        logged_model.log(self._client, self._run, directory, last)


def _end(client: mlflow.MlflowClient, run_id: str, record: Record) -> None:
    """Sets the status of a run, why it did not finish, and what else is to be said of it."""
    tags = record.tags | ({"reason": without_password(record.reason)[:5000]} if record.reason else {})
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    client.set_terminated(run_id, record.status, end_time=int(1000 * record.ended))


def _artifacts(record: Record) -> list[tuple[Path, str | None]]:
    """The files that MLflow is given of a run that is over, and where it keeps them."""
    if record.status == "FINISHED" or record.kind == "sweep":
        pictures = [(path, "plots") for path in sorted(record.directory.glob("plots/*.png"))]
        return pictures + [(path, None) for path in map(record.directory.joinpath, LEFT) if path.exists()]
    return [(path, "divergence") for path in sorted(record.directory.glob("divergence/step-*"))]


def create(
    uri: str, experiment: str, name: str | None, tags: dict[str, str], journal: Journal, parent: str = ""
) -> MlflowRun:
    """Opens a new run.

    Args:
        uri: of the store.
        experiment: its name; made if it is not there.
        name: shown in the UI; None lets MLflow make one up.
        tags: are there from the first moment on.
        journal: whose rows are delivered.
        parent: MLflow's id of the sweep that it belongs to, if to any.

    Raises:
        TrackingError: the store cannot be opened.
    """
    if parent:
        tags = tags | {MLFLOW_PARENT_RUN_ID: parent}
    with _opening(uri) as client:
        run = client.create_run(_experiment(client, experiment), run_name=name, tags=tags)
    return MlflowRun(client, uri, run, journal)


def find(uri: str, run_id: str, journal: Journal) -> MlflowRun:
    """Takes a run up again.

    Raises:
        TrackingError: the store cannot be opened, or does not have it any more.
    """
    with _opening(uri) as client:
        run = _run(client, run_id)
    if run is None:
        raise TrackingError(
            without_password(f"MLflow at {uri} has no run {run_id}"),
            "type the tracking.uri=... that has it, or tracking.enabled=false",
        )
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        raise TrackingError(f"the run {run_id} was deleted", f"mlflow runs restore --run-id {run_id}")
    return MlflowRun(client, uri, run, journal)


def directory_of(uri: str, run_id: str) -> Path | None:
    """The directory that a run has on the machine where it was started, if it exists at all."""
    with _opening(uri) as client:
        run = _run(client, run_id)
    return Path(run.data.tags["directory"]) if run and "directory" in run.data.tags else None


def close_dead(uri: str, experiment: str) -> Iterator[str]:
    """Closes as KILLED what processes of this machine left RUNNING; yields a line for each."""
    with _opening(uri) as client:
        mine = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
        running = client.search_runs([_experiment(client, experiment)], mine)
    for run in running:
        directory = Path(run.data.tags.get("directory", "/nowhere"))
        if record.is_at_work(directory, int(run.data.tags.get("pid", 0))):
            continue
        left = record.left(directory)
        _end(client, run.info.run_id, left)
        told = f"{run.info.run_id} ({run.info.run_name}) was left RUNNING by a process that is gone"
        if left.status == "KILLED" and directory.is_dir() and left.run_id:
            yield f"{told}; to go on: {left.resume}"
        elif not left.sent and left.run_id:
            yield f"{told}; to send the rest of it: python -m mlp_tape sync {shlex.quote(str(directory))}"
        else:
            yield told


@contextlib.contextmanager
def _opening(uri: str) -> Iterator[mlflow.MlflowClient]:
    """A client of a store that answers.

    Raises:
        TrackingError: it does not, or MLflow cannot work with it.
    """
    address.refuse_silence(uri)
    try:
        with _alone(uri):
            yield mlflow.MlflowClient(uri)
    except Exception as error:
        raise address.cannot_be_opened(uri, delivery.why(error)) from error


def _experiment(client: mlflow.MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        made_meanwhile = client.get_experiment_by_name(name)
        if made_meanwhile is None:
            raise
        return str(made_meanwhile.experiment_id)


def _run(client: mlflow.MlflowClient, run_id: str) -> Run | None:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Lets one process at a time open a sqlite store: several that make its tables together fail."""
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not file.parent.is_dir():
        yield
        return
    with filelock.FileLock(f"{file}.lock", timeout=60):
        if not file.exists():
            _make(file)
        yield


def _make(file: Path) -> None:
    """Makes a sqlite store under another name first: one killed in its migrations opens never again."""
    new = file.with_name(f"{file.name}.new")
    for left in file.parent.glob(f"{new.name}*"):
        left.unlink()
    mlflow.MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1)
    new.replace(file)
