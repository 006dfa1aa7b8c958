"""Sends what MLflow has not got of runs that are over."""

import math
from collections.abc import Callable
from pathlib import Path

from mlp_tape.errors import MlpTapeError, TrackingError
from mlp_tape.mlflow_backend.run import MlflowRun
from mlp_tape.storage import lock, run_record
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import sqlite_file
from mlp_tape.tracking.uri import damaged_error, recorded_uri

PATIENCE = 30.0  # seconds without an answer


def sync(parents: list[Path], uri: str | None, say: Callable[[str], None]) -> bool:
    """Sends the rows, files and status of every run below some directories.

    Args:
        parents: directories of runs, or above them.
        uri: of the store, where it is not the one that a run was tracked in.
        say: is told what became of each run.

    Returns:
        Whether all was sent.
    """
    found = [directory for parent in parents for directory in run_record.directories(parent)]
    unsent = [directory for directory in found if _is_unsent(directory, say)]
    if not unsent:
        say(f"{len(found)} runs, nothing to send")
    done = True
    for directory in unsent:
        try:
            say(f"{directory}: {send(directory, uri)}")
        except MlpTapeError as error:
            say(f"{directory}: {error.what}; {error.hint}")
            done = False
    return done


def _is_unsent(directory: Path, say: Callable[[str], None]) -> bool:
    try:
        run = run_record.read(directory)
    except MlpTapeError as error:
        say(error.what)
        return False
    return bool(run.uri) and not run.sent


def send(directory: Path, uri: str | None, at_most: float = math.inf) -> str:
    """Sends what is left of one run; returns what that was.

    Args:
        directory: of the run.
        uri: of the store, where it is not the one that the run was tracked in.
        at_most: seconds.

    Raises:
        ConfigError: another process is using it.
        TrackingError: the store cannot be opened, or took not all of it.
    """
    with lock.hold(directory), Journal(directory) as journal:
        run = run_record.read_abandoned(directory)
        rows = journal.count_unsent()
        deliver(run, journal, uri or recorded_uri(run.uri), at_most)
        run.sent = True
        run.save()
    return f"{rows:,} rows and the status {run.status} sent"


def deliver(run: RunRecord, journal: Journal, uri: str, at_most: float = math.inf) -> None:
    """Sends the rows, files and status of a run that is over.

    Args:
        run: what is known of it.
        journal: of the run; what is unsent there is sent.
        uri: of the store.
        at_most: seconds.

    Raises:
        TrackingError: the store cannot be opened, or did not take all of it.
    """
    mlflow_run = MlflowRun(uri, run.settings["tracking"]["experiment"], run, journal)
    mlflow_run.open()
    why_not = mlflow_run.close(PATIENCE, at_most, lambda rows: None)
    if why_not:
        damage = damaged_error(uri, why_not).hint if sqlite_file.is_damage(why_not) else ""
        raise TrackingError(
            f"{journal.count_unsent():,} rows are left: {why_not}", damage or "try again later"
        )
