"""Access to an MLflow store that several processes use: its database, its experiments and its runs."""

import contextlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import filelock
import mlflow
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlp_tape.errors import TrackingError
from mlp_tape.mlflow_backend import own_tags, relocation
from mlp_tape.mlflow_backend.failures import why
from mlp_tape.reports import description
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import sqlite_file
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import check_reachable, mlflow_command, unavailable_error

T = TypeVar("T")
BUSY = 120.0  # seconds for which other processes may lock a store before it counts as unavailable
PAUSE = 0.1  # seconds between two attempts while it is locked
FRESH = 10.0  # seconds after the last write during which its tables may still be incomplete
MAKING = 600.0  # seconds to wait for another process to create the tables, which takes about two
ARTIFACT_ROOT = (
    "_MLFLOW_SERVER_ARTIFACT_ROOT"  # of `mlflow server --default-artifact-root`, honoured by MLflow
)
TOKEN = "token"  # tag that identifies a run

for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised as well


def end(client: mlflow.MlflowClient, run: Run, record: RunRecord, written: dict[str, str]) -> None:
    """Sets the status and the tags of a run that has ended.

    Args:
        client: client of the store.
        run: run as it is in the store.
        record: its record.
        written: as in `own_tags.update`.
    """
    tags = (
        description.tags(record)
        | record.tags
        | ({"reason": without_password(record.reason)[:5000]} if record.reason else {})
    )
    own_tags.update(client, run, tags, written)
    client.set_terminated(run.info.run_id, record.status, end_time=milliseconds(record.ended))


def directory_of(uri: str, run_id: str) -> Path | None:
    """Returns the directory of a run on the machine where it was started; None if there is no such run."""
    run = ask(uri, lambda client: run_of(client, run_id))
    return Path(run.data.tags["directory"]) if run and "directory" in run.data.tags else None


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
    except TrackingError:
        raise
    except Exception as error:
        raise unavailable_error(uri, why(error)) from error


def is_busy(error: Exception) -> bool:
    """Returns whether an error means that another process has locked a SQLite database."""
    return "is locked" in str(error)


def experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    """Returns the id of an experiment; creates it if it does not exist, which several processes may do.

    The artifacts of a SQLite database are next to it, wherever the process is started.

    Raises:
        TrackingError: the experiment was deleted, or the store was moved.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, _artifact_location(client)))
        except Exception:  # another process was faster, or it was created although an error was reported
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise TrackingError(
            f"the experiment {name} was deleted",
            mlflow_command(client.tracking_uri, f"experiments restore --experiment-id {found.experiment_id}")
            + ", or type tracking.experiment=ANOTHER_NAME",
        )
    relocation.check(client.tracking_uri, str(found.artifact_location))
    return str(found.experiment_id)


def _artifact_location(client: mlflow.MlflowClient) -> str | None:
    """Returns the artifact location of the next experiment in a SQLite database; None for other stores."""
    file = sqlite_file.path_of(client.tracking_uri)
    if file is None or os.environ.get(ARTIFACT_ROOT):
        return None
    newest = client.search_experiments(ViewType.ALL, max_results=1, order_by=["experiment_id DESC"])
    return str(file.parent / relocation.ARTIFACTS / str(int(newest[0].experiment_id) + 1 if newest else 1))


def create_run(client: mlflow.MlflowClient, experiment_id: str, record: RunRecord) -> Run:
    """Creates the run of a record, with the tags that identify it."""
    tags = record.source | record.owner_tags | ({TOKEN: record.token} if record.token else {})
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


def jobs_of(client: mlflow.MlflowClient, run: Run) -> list[Run]:
    """Returns the child runs of a sweep, in the order in which they began; of any other run, itself."""
    found = client.search_runs(
        [run.info.experiment_id],
        f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'",
        order_by=["attributes.start_time ASC"],
        max_results=10_000,
    )
    return list(found) or [run]


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
    if not os.environ.get(ARTIFACT_ROOT):
        default = str(file.parent / relocation.ARTIFACTS / "0")  # of the experiment that MLflow has created
        with sqlite_file.connection(new) as database, database:
            database.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (default,)
            )
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
