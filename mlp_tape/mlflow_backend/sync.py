"""Delivery of ended runs on request: `python -m mlp_tape sync`."""

import functools
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient

from mlp_tape.errors import MlpTapeError
from mlp_tape.mlflow_backend import delivery, store
from mlp_tape.storage import journal, lock, run_paths, run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system.formatting import count
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import recorded_uri

Say = Callable[[str], None]
BEST = "best.run_id"  # tag of a sweep with the MLflow run id of one of its jobs


def sync(parents: list[Path], say: Say) -> bool:
    """Delivers what MLflow is missing of every run below some directories, each to the store that has it.

    Args:
        parents: directories of runs, or above them.
        say: called with a line about each run.

    Returns:
        Whether everything was delivered.
    """
    found = _runs(parents, say)
    unsent = [run for run in found if run.store and not run.sent]
    if not unsent:
        say(f"{count(len(found), 'run')}, nothing to send")
    sent = [_attempt(run, _send, say) for run in unsent]
    return all(sent)


def copy(parents: list[Path], uri: str, say: Say) -> bool:
    """Delivers every run below some directories to a store besides their own; repetition changes nothing.

    Jobs are below their sweep there, too, so a job's sweep is copied with it.

    Args:
        parents: directories of runs, or above them.
        uri: URI of the other store.
        say: called with a line about each run.

    Returns:
        Whether everything was delivered.
    """
    runs = {run.directory: run for run in _runs(parents, say)}
    for run in list(runs.values()):
        sweep = run.directory.parent
        if run.parent and (sweep / run_paths.RECORD).exists():
            runs.setdefault(sweep, run_record.read(sweep))
    ids: dict[str, str] = {}  # in the other store, by the id in the store of the run

    def send(run: RunRecord) -> str:
        if run.run_id and run.store == without_password(uri):
            return "it is recorded there"
        with lock.hold(run.directory):
            run = run_record.close_abandoned(run.directory)
            own_id, run.parent = run.run_id, ids.get(run.parent, "")
            run.tags.pop(BEST, None)
            ids[own_id] = delivery.deliver_copy(run, uri)
        rows = count(journal.count_after(run.directory, 0), "row")
        return f"{rows} and the status {run.status} are in the run {ids[own_id]}"

    sweeps_first = sorted(runs.values(), key=lambda run: run.kind != "sweep")
    copied = [_attempt(run, send, say) for run in sweeps_first]
    for run in runs.values():
        sweep_id, best = ids.get(run.run_id), ids.get(run.tags.get(BEST, ""))
        if sweep_id and best:
            store.ask(uri, functools.partial(_set_tag, sweep_id, best))
    return all(copied)


def _set_tag(run_id: str, best: str, client: MlflowClient) -> None:
    client.set_tag(run_id, BEST, best)


def _attempt(run: RunRecord, send: Callable[[RunRecord], str], say: Say) -> bool:
    """Sends a run, and reports what was sent or why not; returns whether it was sent."""
    try:
        say(f"{run.directory}: {send(run)}")
    except MlpTapeError as error:
        say(f"{run.directory}: {error.what}; {error.hint}")
        return False
    return True


def _send(run: RunRecord) -> str:
    """Delivers a run to its own store; returns what was delivered."""
    with lock.hold(run.directory):
        run = run_record.close_abandoned(run.directory)
        rows = journal.count_after(run.directory, run.delivery.position)
        delivery.deliver_all(run.directory, recorded_uri(run))
    return f"{count(rows, 'row')} and the status {run.status} sent"


def _runs(parents: list[Path], say: Say) -> list[RunRecord]:
    """Returns the records of all runs below some directories, and reports those that cannot be read."""
    found = []
    for directory in dict.fromkeys(each for parent in parents for each in run_record.directories(parent)):
        try:
            found.append(run_record.read(directory))
        except MlpTapeError as error:
            say(error.what)
    return found
