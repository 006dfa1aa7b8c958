"""The run in MLflow: opened or gone on with, fed from the journal, and closed with its true status."""

import contextlib
import functools
import logging
import os
import platform
import shlex
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from mlp_tape import address, delivery, provenance, record
from mlp_tape.delivery import Delivery, Job
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
    """One run in an MLflow store.

    It is opened by `open`, or else by the thread that delivers, which tries until it can.

    Args:
        uri: of the store.
        experiment: its name; made if it is not there.
        record: of the run: one with a `run_id` is taken up again, and one with a `uri` alone is looked for.
        journal: whose rows are delivered.
        opened: told once the thread has opened it.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        record: Record,
        journal: Journal,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self._opened = opened
        self._uri, self._experiment, self._record, self._journal = uri, experiment, record, journal
        self._run: Run | None = None
        self._may_be_there, self._model_given = bool(record.uri), False
        record.uri = without_password(uri)
        self._delivery = Delivery(journal, self._send)

    def open(self) -> None:
        """Makes the run, or takes it up again, and notes its id in the record.

        Raises:
            TrackingError: the store cannot be opened, or does not have the run any more.
        """
        with _opening(self._uri) as client:
            run_id = self._record.run_id or self._without_record(client)
            run = _run(client, run_id) if run_id else self._new(client)
        if run is None:
            raise TrackingError(
                without_password(f"MLflow at {self._uri} has no run {run_id}"),
                "type the tracking.uri=... that has it, or tracking.enabled=false",
            )
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise TrackingError(f"the run {run_id} was deleted", f"mlflow runs restore --run-id {run_id}")
        self._client, self._run, self._record.run_id = client, run, run.info.run_id

    def _without_record(self, client: mlflow.MlflowClient) -> str:
        """The id of a run whose process was killed before it could write that down, or nothing."""
        directory = str(self._record.directory)
        if not self._may_be_there or "'" in directory:
            return ""
        mine = f"tags.directory = '{directory}' and attributes.status != 'FINISHED'"
        found = client.search_runs([_experiment(client, self._experiment)], mine)
        return str(found[0].info.run_id) if found else ""

    def _new(self, client: mlflow.MlflowClient) -> Run:
        record = self._record
        tags = provenance.tags() | provenance.process(record.directory)
        if record.parent:
            tags[MLFLOW_PARENT_RUN_ID] = record.parent
        experiment_id = _experiment(client, self._experiment)
        began = int(1000 * record.began) or None  # a job's is made a little later
        return client.create_run(experiment_id, began, tags, record.name or None)

    @property
    def link(self) -> str:
        """As `Tracker.link`; nothing before it is opened."""
        return address.link(self._uri, self._run.info.experiment_id, self._record.run_id) if self._run else ""

    @property
    def overview(self) -> str:
        """As `Tracker.overview`; nothing before it is opened."""
        return self.link.replace("/model-metrics", "")

    def begin(self) -> None:
        """As `Tracker.begin`; a new run, whose store has just answered, is told by the thread."""
        if self._run and self._run.data.params:
            with _opening(self._uri):
                self._begin()
            self._delivery.start()
        else:
            self._delivery.start(*self._to_begin())

    def _to_begin(self) -> list[Job]:
        return [self._begin] if self._run else [self.open, self._opened, self._begin]

    def _begin(self) -> None:
        assert self._run
        record, there = self._record, self._run.data
        new = {key: value for key, value in record.params.items() if key not in there.params}
        tags = provenance.process(record.directory) | {"command": record.command}
        self._client.log_batch(
            record.run_id,
            params=[Param(key, value) for key, value in new.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        if self._run.info.status != "RUNNING":
            self._client.update_run(record.run_id, status="RUNNING")
        if "reason" in there.tags:
            self._client.delete_tag(record.run_id, "reason")
        for name in GIVEN:
            self._client.log_artifact(record.run_id, str(record.directory / name))

    def give_model(self) -> None:
        """As `Tracker.give_model`."""
        self._model_given = True
        self._delivery.do_soon(self._model)

    def close(self, patience: float, at_most: float, show: Show) -> str:
        """As `Tracker.close`."""
        record = self._record
        if self._delivery.ident is None:  # the process before this one may not have got so far
            begun = self._run and set(record.params) <= set(self._run.data.params)
            self._delivery.start(*([] if begun else self._to_begin()))
        jobs: list[Job] = [functools.partial(self._artifact, *found) for found in _artifacts(record)]
        if record.status == "FINISHED" and record.kind == "run" and record.full and not self._model_given:
            jobs.append(self._model)
        killed = record.status == "KILLED"  # by somebody who waits: first of all, this is said
        first, last = ([self._end], jobs) if killed else ([], [*jobs, self._end])
        return without_password(self._delivery.finish(first, last, patience, at_most, show))

    def _end(self) -> None:
        end(self._client, self._record.run_id, self._record)

    def _send(self, rows: list[Row]) -> None:
        metrics = [Metric(row.key, row.value, row.timestamp, row.step) for row in rows]
        self._client.log_batch(self._record.run_id, metrics=metrics)

    def _artifact(self, path: Path, directory: str | None) -> None:
        self._client.log_artifact(self._record.run_id, str(path), directory)

    def _model(self) -> None:
        from mlp_tape import logged_model

        assert self._run

        last = [row for key in RESULTS for row in deque(self._journal.read(key), maxlen=1)]
        logged_model.log(self._client, self._run, self._record.directory, last)


def end(client: mlflow.MlflowClient, run_id: str, record: Record) -> None:
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
        end(client, run.info.run_id, left)
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
