"""The session around a run: opened in its directory and in MLflow, and closed with its true status."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlp_tape.config.settings import TrackingSettings
from mlp_tape.errors import DiskError
from mlp_tape.storage import journal, run_paths
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import atomic_files, signals, timeline
from mlp_tape.system.console import Console
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.client import HURRY, ClientRun
from mlp_tape.tracking.tracker import Tracker, Untracked
from mlp_tape.tracking.uri import missing_rows_message, resolve_uri

AWHILE = 5.0  # seconds without progress after which a job leaves the rest to its sweep
BEFORE_TRAINING = (run_paths.RECORD, run_paths.SETTINGS, run_paths.ENVIRONMENT, run_paths.CHANGES)

_background: ThreadPoolExecutor | None = None


@contextlib.contextmanager
def jobs_closed_in_background() -> Iterator[None]:
    """Lets the next job of a sweep train while the last one is delivered; waits for all at the end."""
    global _background
    _background = ThreadPoolExecutor(1, "closing")
    try:
        yield
    finally:
        _background.shutdown(cancel_futures=signals.received() is not None)
        _background = None


@contextlib.contextmanager
def run_session(
    tracker: Tracker, patience: float, record: RunRecord, write_files: Callable[[], None], console: Console
) -> Iterator[Tracker]:
    """Opens a new or resumed run, and closes it: FINISHED, FAILED on an error, KILLED on a stop.

    Args:
        tracker: tracker of the run.
        patience: seconds without progress, at the end, after which the rest is left to `sync`.
        record: record of the run.
        write_files: writes the files of BEFORE_TRAINING other than the record.
        console: receives messages.

    Raises:
        TrackingError: MLflow cannot be opened, or does not have the run to resume. The directory is then
            as it was before.
        DiskError: the directory cannot be written to.
    """
    before, run_id = _contents(record.directory), record.run_id
    record.mark_started()
    status, reason, at_most, begun = "FINISHED", "", math.inf, True
    try:
        with _disk_errors(record):
            begun = False
            write_files()
            record.save()
            with timeline.phase("wait for MLflow"):
                tracker.open(console.line, console.warn)
            begun = True
            console.copy_to(record.directory / run_paths.CONSOLE)
            yield tracker
    except BaseException as error:
        status, reason = _ended_by(error)
        console.trace(error)  # before the copy of the console is delivered
        if status == "KILLED":
            patience = at_most = HURRY
        begun = begun or record.run_id != run_id or record.delivery.began == record.began
        raise
    finally:
        if begun:
            _end(tracker, record, status, reason)
            if _background and record.parent and status == "FINISHED":
                patience = min(patience, AWHILE)
                _background.submit(_close, tracker, patience, at_most, record, Console(on_screen=False))
            else:
                _close(tracker, patience, at_most, record, console)
        else:
            _restore(before)


def tracker(settings: TrackingSettings, record: RunRecord, rows: Journal) -> Tracker:
    """Returns the tracker that the settings ask for; MLflow's process begins to prepare for the run.

    Args:
        settings: tracking settings.
        record: record of the run.
        rows: journal of the run.
    """
    if not settings.enabled:
        return Untracked()
    run = ClientRun(resolve_uri(settings), record, rows)
    if not record.parent:  # the sweep has prepared the store for its jobs
        run.prepare(settings.experiment or record.experiment)
    return run


def _contents(directory: Path) -> dict[Path, bytes | None]:
    """Returns the contents of the files that are written before a run is open; None for a missing file."""
    paths = (directory / name for name in BEFORE_TRAINING)
    return {path: path.read_bytes() if path.exists() else None for path in paths}


def _restore(contents: dict[Path, bytes | None]) -> None:
    """Restores what `_contents` returned."""
    for path, content in contents.items():
        with contextlib.suppress(OSError):  # a full disk has been reported
            if content is None:
                path.unlink(missing_ok=True)
            else:
                atomic_files.write(path, content)


@contextlib.contextmanager
def _disk_errors(record: RunRecord) -> Iterator[None]:
    """Turns an OSError into a DiskError that says how to resume the run."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{error.filename or record.directory}: {error.strerror or error}",
            f"when that is cured: {record.resume}",
        ) from error


def _ended_by(error: BaseException) -> tuple[str, str]:
    """Returns the status and the reason of a run that did not finish."""
    if signals.stop_reason() or isinstance(error, KeyboardInterrupt):
        return "KILLED", signals.stop_reason() or signal.SIGINT.name
    cause = error.__cause__ if isinstance(error, DiskError) and error.__cause__ else error
    return "FAILED", without_password(f"{type(cause).__name__}: {cause}")


def _end(tracker: Tracker, record: RunRecord, status: str, reason: str) -> None:
    """Records in the directory how the run ended."""
    if isinstance(tracker, ClientRun) and record.settings["tracking"]["system_metrics"]:
        tracker.stop_measuring()
    with contextlib.suppress(OSError):  # a full disk has been reported
        record.mark_ended(status, reason)


def _close(tracker: Tracker, patience: float, at_most: float, record: RunRecord, console: Console) -> None:
    """Delivers what is left; reports what could not be delivered, and how to do it later."""
    why_not = "it was stopped"
    try:
        with timeline.phase("delivery"), console.waiting("sending to MLflow") as show:
            why_not = tracker.close(patience, at_most, show)
    finally:
        if why_not:
            rows = journal.count_after(record.directory, record.delivery.position)
            console.warn(missing_rows_message(record.store, rows, why_not, record.sync))
        if record.status == "KILLED":
            console.line(f"stopped by {record.reason}; to resume: {record.resume}")
