"""Access to an MLflow store that several processes use: its database, its experiments and its runs."""

import contextlib
import logging
import os
import platform
import secrets
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mlp_tape.reports import description
from mlp_tape.storage import lock, run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import sqlite_file
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import check_reachable, unavailable_error

# MLflow reads these when it is imported, or at each request.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# If a response is lost, the request may have succeeded: MLflow would send it again, we check first.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds

import filelock
import mlflow
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

T = TypeVar("T")
BUSY = 120.0  # seconds for which other processes may lock a store before it counts as unavailable
PAUSE = 0.1  # seconds between two attempts while it is locked
FRESH = 10.0  # seconds after the last write during which its tables may still be incomplete
MAKING = 600.0  # seconds to wait for another process to create the tables, which takes about two
TOKEN = "token"  # tag that identifies a run
TWIN = "created twice; the run of this directory is "  # reason of a duplicate run

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised as well


def end(client: mlflow.MlflowClient, run_id: str, record: RunRecord) -> None:
    """Sets the status and the tags of a run that has ended."""
    tags = (
        description.tags(record)
        | record.tags
        | ({"reason": without_password(record.reason)[:5000]} if record.reason else {})
    )
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    client.set_terminated(run_id, record.status, end_time=milliseconds(record.ended))


def directory_of(uri: str, run_id: str) -> Path | None:
    """Returns the directory of a run on the machine where it was started; None if there is no such run."""
    run = ask(uri, lambda client: run_of(client, run_id))
    return Path(run.data.tags["directory"]) if run and "directory" in run.data.tags else None


def close_dead(uri: str, experiment: str) -> Iterator[str]:
    """Closes runs that processes of this machine left RUNNING; yields a line for each.

    The status is the one in the directory of the run, or KILLED. Duplicates of runs, which earlier versions
    could create while the store was busy, are closed too.
    """

    def running(client: mlflow.MlflowClient) -> list[Run]:
        mine = f"attributes.status = 'RUNNING' and tags.host = '{platform.node()}'"
        return list(client.search_runs([experiment_id(client, experiment)], mine, max_results=10_000))

    for run in ask(uri, running):
        directory = Path(run.data.tags.get("directory", "/nowhere"))
        if lock.is_held(directory, int(run.data.tags.get("pid", 0))):
            continue
        yield from _close_dead(uri, run, directory)


def _close_dead(uri: str, run: Run, directory: Path) -> Iterator[str]:
    left, run_id = run_record.read_abandoned(directory), run.info.run_id
    told = f"{run_id} ({run.info.run_name}) was left RUNNING by a process that no longer exists"
    if left.run_id and left.run_id != run_id:
        reason = TWIN + left.run_id
        twin = RunRecord(directory, status="KILLED", reason=reason, ended=left.ended)
        ask(uri, lambda client: end(client, run_id, twin))
        yield f"{run_id} ({run.info.run_name}) was {reason}"
        return
    ask(uri, lambda client: end(client, run_id, left))
    if left.status == "KILLED" and directory.is_dir() and left.run_id:
        yield f"{told}; to resume: {left.resume}"
    elif not left.sent and left.run_id:
        if not lock.process_exists(left.pid):  # else it is the one that sends the rest
            yield f"{told}; to send the rest of it: python -m mlp_tape sync {shlex.quote(str(directory))}"
    else:
        yield told


@dataclass(frozen=True)
class Past:
    """A run as recorded in MLflow.

    Attributes:
        name: name in the UI.
        run_id: MLflow run id.
        status: MLflow status.
        seconds: duration; 0 while it is running.
        params: MLflow params.
        curves: pairs of step and value, by metric key.
        experiment_id: MLflow experiment id.
    """

    name: str
    run_id: str
    status: str
    seconds: float
    params: dict[str, str]
    curves: dict[str, list[tuple[int, float]]]
    experiment_id: str


def pasts(uri: str, run_id: str, keys: Iterable[str]) -> list[Past]:
    """Returns a run, or the child runs of a sweep; an empty list if there is no such run.

    Args:
        uri: URI of the store.
        run_id: MLflow run id of the run or the sweep.
        keys: metric keys of the curves.
    """

    def found(client: mlflow.MlflowClient) -> list[Past]:
        run = run_of(client, run_id)
        if run is None:
            return []
        below = client.search_runs(
            [run.info.experiment_id],
            f"tags.mlflow.parentRunId = '{run_id}'",
            order_by=["attributes.start_time ASC"],
        )
        return [_past(client, each, keys) for each in below or [run]]

    return ask(uri, found)


def _past(client: mlflow.MlflowClient, run: Run, keys: Iterable[str]) -> Past:
    curves = {
        key: sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, key))
        for key in keys
    }
    seconds = (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else 0.0
    name, params = str(run.info.run_name), dict(run.data.params)
    return Past(name, run.info.run_id, run.info.status, seconds, params, curves, run.info.experiment_id)


def ask(uri: str, question: Callable[[mlflow.MlflowClient], T]) -> T:
    """Calls a function with a client of a store, again while other processes keep the store locked.

    Args:
        uri: URI of the store.
        question: function to call. It may be called several times, and a request that failed may have been
            executed nevertheless; a function that creates something must check first.

    Returns:
        The result of the function.

    Raises:
        TrackingError: the store does not respond, or MLflow cannot work with it.
    """
    check_reachable(uri)
    ends = time.monotonic() + BUSY
    try:
        _make_if_missing(uri)
        while True:
            try:
                return question(mlflow.MlflowClient(uri))
            except Exception as error:
                if not (is_busy(error) or _is_being_made(uri)) or time.monotonic() > ends:
                    raise
            time.sleep(PAUSE)
    except Exception as error:
        raise unavailable_error(uri, why(error)) from error


def why(error: Exception) -> str:
    """Returns the line of an error that says what is wrong, without the advice to programmers before it."""
    lines = [line for line in str(error).splitlines() if not line.startswith("(raised as a result of ")]
    return lines[0] if lines else type(error).__name__


def is_busy(error: Exception) -> bool:
    """Returns whether an error means that another process has locked a SQLite database."""
    return "is locked" in str(error)


def experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    """Returns the id of an experiment; creates it if it does not exist, which several processes may do."""
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except Exception:  # another process was faster, or it was created although an error was reported
        created = client.get_experiment_by_name(name)
        if created is None:
            raise
        return str(created.experiment_id)


def create_run(client: mlflow.MlflowClient, experiment_id: str, record: RunRecord) -> Run:
    """Creates the run of a record, with the tags that identify it."""
    tags = record.source | record.process | ({TOKEN: record.token} if record.token else {})
    if record.parent:
        tags[MLFLOW_PARENT_RUN_ID] = record.parent
    return client.create_run(experiment_id, milliseconds(record.created), tags, record.name or None)


def runs_of(client: mlflow.MlflowClient, experiment_id: str, record: RunRecord) -> list[Run]:
    """Returns the runs that were created for a record, by any process and attempt, in order of creation.

    A record of an earlier version has no token; its run is recognized by the directory and the time. A run
    that has FINISHED may belong to another record, which had the same directory before.
    """
    if record.token:
        return runs_with(client, experiment_id, TOKEN, record.token)
    began = milliseconds(record.began)
    found = runs_with(client, experiment_id, "directory", str(record.directory))
    return [run for run in found if run.info.status != "FINISHED" or run.info.start_time == began]


def runs_with(client: mlflow.MlflowClient, experiment_id: str, tag: str, value: str) -> list[Run]:
    """Returns the runs of an experiment with a given tag, in order of creation."""
    quote = '"' if "'" in value else "'"  # MLflow cannot escape quotes
    if quote in value:
        return []
    found = client.search_runs(
        [experiment_id],
        f"tags.`{tag}` = {quote}{value}{quote}",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
    )
    return list(found)


def milliseconds(seconds: float) -> int | None:
    """Converts a time in seconds since the Unix epoch to milliseconds; None for 0, an unknown time."""
    return int(1000 * seconds) or None


def run_of(client: mlflow.MlflowClient, run_id: str) -> Run | None:
    """Returns a run; None if the store does not have it."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _make_if_missing(uri: str) -> None:
    """Creates a SQLite store if it does not exist; one process at a time, as several at once fail."""
    file = sqlite_file.path_of(uri)
    if file is None or not file.parent.is_dir() or _has_content(file):
        return
    with making(file):
        if _has_content(file):
            return
        if file.exists():  # empty; it must not be replaced, as another program may have it open
            mlflow.MlflowClient(uri).search_experiments(max_results=1)
            return
        new = make_beside(file)
        with contextlib.suppress(FileExistsError):  # another program, such as mlflow ui, has created it
            give_name(new, file)


def making(file: Path) -> filelock.BaseFileLock:
    """Returns the lock for creating a SQLite store at a path, in which symbolic links are resolved."""
    return filelock.FileLock(f"{file}.lock", timeout=MAKING)


def make_beside(file: Path) -> Path:
    """Creates a SQLite store under another name, as one that is killed in its migrations can never be opened.

    Args:
        file: path to which the store will be renamed; its lock must be held.

    Returns:
        The path of the store. No connection to it is open: it would use the old name for its journal.
    """
    for left in file.parent.glob(
        f"{file.name}.making-*"
    ):  # of processes that no longer exist, as they held the lock
        left.unlink()
    new = file.with_name(f"{file.name}.making-{secrets.token_hex(4)}")
    # With the mode given by the umask; SQLite would not let other users write. The file is new, so there is
    # no connection to it whose locks would be lost when it is closed.
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    with without_pool():
        mlflow.MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1)
    return new


def give_name(new: Path, file: Path) -> None:
    """Renames a store that no process has open; never replaces another one.

    Raises:
        FileExistsError: there is another one; the new one is removed.
    """
    try:
        os.link(new, file)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        if file.exists():
            raise FileExistsError(file) from None
        new.rename(file)
    finally:
        new.unlink(missing_ok=True)


@contextlib.contextmanager
def without_pool() -> Iterator[None]:
    """Makes the database engines that MLflow creates in the block close each connection after its use."""
    key = "MLFLOW_SQLALCHEMYSTORE_POOLCLASS"
    before = os.environ.get(key)
    os.environ[key] = "NullPool"
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


def _has_content(file: Path) -> bool:
    """Returns whether a store exists; an empty file is none."""
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _is_being_made(uri: str) -> bool:
    """Returns whether another program, such as `mlflow ui`, may be creating the tables at this moment."""
    file = sqlite_file.path_of(uri)
    try:
        if file is None or time.time() - file.stat().st_mtime > FRESH:
            return False
        with sqlite_file.connection(file) as database:
            found = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            return bool(found) and not database.execute("SELECT count(*) FROM experiments").fetchone()[0]
    except sqlite3.OperationalError:  # a table does not exist yet
        return True
    except (OSError, sqlite3.Error):
        return False
