"""A run while it is recorded: opened in its directory and in MLflow, and closed as what it was."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from mlp_tape.config.settings import TrackingSettings
from mlp_tape.errors import DiskError, TrackingError
from mlp_tape.storage import run_paths
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import signals
from mlp_tape.system.console import Console
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.client import HURRY, ClientRun
from mlp_tape.tracking.tracker import Tracker, Untracked
from mlp_tape.tracking.uri import missing_rows_message, resolve_uri

AWHILE = 5.0  # seconds without an answer after which the sweep itself is left to send what a job could not

_background: ThreadPoolExecutor | None = None


@contextlib.contextmanager
def jobs_closed_in_background() -> Iterator[None]:
    """Lets the next job of a sweep train while MLflow is given the last one's end; waits for all of it."""
    global _background
    _background = ThreadPoolExecutor(1, "closing")
    try:
        yield
    finally:
        _background.shutdown(cancel_futures=signals.received() is not None)
        _background = None


@contextlib.contextmanager
def run_session(
    tracker: Tracker,
    patience: float,
    record: RunRecord,
    files: Callable[[], None],
    journal: Journal,
    console: Console,
) -> Iterator[Tracker]:
    """Opens a run, or one that was stopped, and closes it: FINISHED, FAILED on an error, KILLED when stopped.

    Args:
        tracker: of the run.
        patience: seconds without an answer, at the end, after which the rest is left to `sync`.
        record: the run's record.
        files: writes `config.yaml` and `environment.txt`.
        journal: whose rows are delivered.
        console: is told what a person has to know.

    Raises:
        TrackingError: MLflow cannot be opened, or has not the run that is gone on with.
        DiskError: the directory takes no more.
    """
    record.mark_started()
    if not record.parent:  # whose store has answered to that: a job can wait
        tracker.open(console.line)
    status, reason, at_most = "FINISHED", "", math.inf
    try:
        console.copy_to(record.directory / run_paths.CONSOLE)
        record.save()
        files()
        tracker.begin()
        yield tracker
    except BaseException as error:
        status, reason = _ended_by(error)
        if status == "KILLED" or isinstance(error, TrackingError):  # which is MLflow's silence from the start
            patience = at_most = HURRY
        if isinstance(error, OSError):
            raise DiskError(
                f"{error.filename or record.directory}: {error.strerror or error}",
                f"when that is cured: {record.resume}",
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # of a full disk was told
            record.mark_ended(status, reason)
        if _background and record.parent and status == "FINISHED":
            patience = min(patience, AWHILE)
            _background.submit(_close, tracker, patience, at_most, record, journal, Console(on_screen=False))
        else:
            _close(tracker, patience, at_most, record, journal, console)


def tracker(settings: TrackingSettings, record: RunRecord, journal: Journal) -> Tracker:
    """Where the settings say that a run is recorded; MLflow's process begins to get ready for it.

    Args:
        settings: of tracking.
        record: the run's record.
        journal: whose rows are delivered.
    """
    if not settings.enabled:
        return Untracked()
    return ClientRun(resolve_uri(settings), settings.experiment, record, journal)


def _ended_by(error: BaseException) -> tuple[str, str]:
    """The status and the reason of a run that did not reach its end."""
    if signals.stop_reason() or isinstance(error, KeyboardInterrupt):
        return "KILLED", signals.stop_reason() or signal.SIGINT.name
    return "FAILED", without_password(f"{type(error).__name__}: {error}")


def _close(
    tracker: Tracker, patience: float, at_most: float, record: RunRecord, journal: Journal, console: Console
) -> None:
    """Delivers what is left; says what could not be, and how to do it later."""
    why_not = "it was stopped"
    try:
        with console.waiting("sending to MLflow") as show:
            why_not = tracker.close(patience, at_most, show)
    finally:
        record.sent = not (why_not or isinstance(tracker, Untracked))
        with contextlib.suppress(OSError):
            record.save()
        if why_not:
            console.warn(missing_rows_message(record.uri, journal.count_unsent(), why_not, record.sync))
        if record.status == "KILLED":
            console.line(f"stopped by {record.reason}; to resume: {record.resume}")
