"""Delivery of ended runs on request: `python -m mlp_tape sync`."""

from collections.abc import Callable
from pathlib import Path

from mlp_tape.errors import MlpTapeError
from mlp_tape.mlflow_backend import delivery
from mlp_tape.storage import journal, lock, run_record
from mlp_tape.system.formatting import count
from mlp_tape.tracking.uri import recorded_uri


def sync(parents: list[Path], uri: str | None, say: Callable[[str], None]) -> bool:
    """Delivers what MLflow is missing of every run below some directories.

    Args:
        parents: directories of runs, or above them.
        uri: URI of the MLflow store; None for the one in which each run was recorded.
        say: called with a line about each run.

    Returns:
        Whether everything was delivered.
    """
    found = [directory for parent in parents for directory in run_record.directories(parent)]
    unsent = [directory for directory in found if _is_unsent(directory, say)]
    if not unsent:
        say(f"{count(len(found), 'run')}, nothing to send")
    done = True
    for directory in unsent:
        try:
            say(f"{directory}: {_send(directory, uri)}")
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
    return bool(run.store) and not run.sent


def _send(directory: Path, uri: str | None) -> str:
    """Delivers a run; returns what was delivered."""
    with lock.hold(directory):
        run = run_record.close_abandoned(directory)
        rows = journal.count_after(directory, run.delivery.position)
        delivery.deliver_all(directory, uri or recorded_uri(run.store))
    return f"{count(rows, 'row')} and the status {run.status} sent"
