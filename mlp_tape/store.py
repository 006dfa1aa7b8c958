"""The MLflow store: opened by one process at a time; its experiments, and the runs that were left in it."""

import contextlib
import logging
import os
import platform
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlp_tape import address, delivery, page, presence, record
from mlp_tape.record import Record
from mlp_tape.redact import without_password

# Read by MLflow when it is imported, or at each request.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds

import filelock
import mlflow
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong, they raise too


def end(client: mlflow.MlflowClient, run_id: str, record: Record) -> None:
    """Sets the status of a run, why it did not finish, and what else is to be said of it."""
    tags = (
        page.tags(record)
        | record.tags
        | ({"reason": without_password(record.reason)[:5000]} if record.reason else {})
    )
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    client.set_terminated(run_id, record.status, end_time=int(1000 * record.ended))


def directory_of(uri: str, run_id: str) -> Path | None:
    """The directory that a run has on the machine where it was started, if it exists at all."""
    with opening(uri) as client:
        run = run_of(client, run_id)
    return Path(run.data.tags["directory"]) if run and "directory" in run.data.tags else None


def close_dead(uri: str, experiment: str) -> Iterator[str]:
    """Closes as KILLED what processes of this machine left RUNNING; yields a line for each."""
    with opening(uri) as client:
        mine = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
        running = client.search_runs([experiment_id(client, experiment)], mine)
    for run in running:
        directory = Path(run.data.tags.get("directory", "/nowhere"))
        if presence.is_at_work(directory, int(run.data.tags.get("pid", 0))):
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


@dataclass(frozen=True)
class Past:
    """What MLflow holds of a run.

    Attributes:
        name: in the UI.
        run_id: MLflow's.
        status: as MLflow has it.
        seconds: from its beginning to its end; 0 while it lasts.
        params: what MLflow calls so.
        curves: step and value by the key of a metric.
    """

    name: str
    run_id: str
    status: str
    seconds: float
    params: dict[str, str]
    curves: dict[str, list[tuple[int, float]]]


def pasts(uri: str, run_id: str, keys: Iterable[str]) -> list[Past]:
    """What MLflow holds of a run, or of each run that stands below it; nothing if it has no such run.

    Args:
        uri: of the store.
        run_id: MLflow's, of the run or of what it stands below.
        keys: of the metrics that are wanted.
    """
    with opening(uri) as client:
        run = run_of(client, run_id)
        if run is None:
            return []
        below = client.search_runs(
            [run.info.experiment_id],
            f"tags.mlflow.parentRunId = '{run_id}'",
            order_by=["attributes.start_time ASC"],
        )
        return [_past(client, each, keys) for each in below or [run]]


def _past(client: mlflow.MlflowClient, run: Run, keys: Iterable[str]) -> Past:
    curves = {
        key: sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, key))
        for key in keys
    }
    seconds = (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else 0.0
    name, params = str(run.info.run_name), dict(run.data.params)
    return Past(name, run.info.run_id, run.info.status, seconds, params, curves)


@contextlib.contextmanager
def opening(uri: str) -> Iterator[mlflow.MlflowClient]:
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


def experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    """The id of an experiment, which is made if it is not there, also by several processes at once."""
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


def run_of(client: mlflow.MlflowClient, run_id: str) -> Run | None:
    """The run of an id, if the store has it."""
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
    new.touch()  # with what the umask leaves to others: sqlite itself would leave them no writing
    mlflow.MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1)
    new.replace(file)
