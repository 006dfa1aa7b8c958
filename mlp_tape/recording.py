"""A run while it is recorded: opened in its directory and in MLflow, and closed as what it was."""

import contextlib
import math
import signal
from collections.abc import Iterator

from mlp_tape import address, config, provenance, report, stop
from mlp_tape.config import Settings
from mlp_tape.console import Console
from mlp_tape.data import Dataset
from mlp_tape.errors import DiskError, TrackingError
from mlp_tape.journal import Journal
from mlp_tape.record import Record
from mlp_tape.redact import without_password
from mlp_tape.tracker import Tracker, Untracked

HURRY = 1.0  # seconds for all that is left of a run whose end somebody waits for


@contextlib.contextmanager
def recorded(
    settings: Settings, dataset: Dataset, note: Record, journal: Journal, console: Console
) -> Iterator[Tracker]:
    """Opens a run, or one that was stopped, and closes it: FINISHED, FAILED on an error, KILLED when stopped.

    Args:
        settings: of the run.
        dataset: what it learns.
        note: the run's record.
        journal: whose rows are delivered.
        console: is told what a person has to know.

    Raises:
        TrackingError: MLflow cannot be opened, or has not the run that is gone on with.
        DiskError: the directory takes no more.
    """
    tracker = _tracker(settings, note, journal, console)
    status, reason, patience, at_most = "FINISHED", "", settings.tracking.patience, math.inf
    try:
        console.copy_to(note.directory / "console.log")
        note.begins()
        artifacts = report.at_the_start(note.directory, settings)
        tags = provenance.process(note.directory) | {"command": provenance.command(note.overrides)}
        tracker.begin(_hparams(settings, dataset), tags, artifacts)
        yield tracker
    except BaseException as error:
        status, reason = _ended_by(error)
        if status == "KILLED" or isinstance(error, TrackingError):  # which is MLflow's silence from the start
            patience = at_most = HURRY
        if isinstance(error, OSError):
            raise DiskError(
                f"{error.filename or note.directory}: {error.strerror or error}",
                f"when that is cured: {note.resume}",
            ) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # of a full disk was told
            note.ends(status, reason)
        _close(tracker, patience, at_most, note, journal, console)


def _tracker(settings: Settings, note: Record, journal: Journal, console: Console) -> Tracker:
    if not settings.tracking.enabled:
        return Untracked()
    from mlp_tape import tracking

    uri, experiment = address.of(settings.tracking), settings.tracking.experiment
    for line in tracking.close_dead(uri, experiment):
        console.line(line)
    if note.run_id:
        run = tracking.find(uri, note.run_id, journal)
    else:
        tags = provenance.tags(note.overrides) | provenance.process(note.directory)
        run = tracking.create(uri, experiment, _name(note.overrides), tags, journal)
    note.run_id, note.uri = run.run_id, without_password(uri)
    return run


def _ended_by(error: BaseException) -> tuple[str, str]:
    """The status and the reason of a run that did not reach its end."""
    if stop.asked() or isinstance(error, KeyboardInterrupt):
        return "KILLED", (stop.asked() or signal.SIGINT).name
    return "FAILED", f"{type(error).__name__}: {error}"


def _close(
    tracker: Tracker, patience: float, at_most: float, note: Record, journal: Journal, console: Console
) -> None:
    """Delivers what is left; says what could not be, and how to do it later."""
    why_not = "it was stopped"
    try:
        with console.waiting("sending to MLflow") as show:
            why_not = tracker.close(note, patience, at_most, show)
    finally:
        note.sent = not (why_not or isinstance(tracker, Untracked))
        with contextlib.suppress(OSError):
            note.save()
        if why_not:
            console.warn(
                f"MLflow has not got all of this run, {journal.count_unsent():,} rows are left: {why_not}\n"
                f"Nothing is lost. To send it: {note.sync}"
            )
        if note.status == "KILLED":
            console.line(f"stopped by {note.reason}; to go on: {note.resume}")


def _hparams(settings: Settings, dataset: Dataset) -> dict[str, object]:
    """What MLflow calls params: the settings, flat, and the data."""
    flat = {key: without_password(str(value)) for key, value in config.flat(settings) if key != "resume"}
    return flat | {
        "layer_sizes": [dataset.n_features, *settings.model.hidden_sizes, dataset.n_classes],
        "n_train": len(dataset.x_train),
        "data_sha256": dataset.sha256,
    }


def _name(overrides: list[str]) -> str | None:
    """The run's name in the UI: what was typed, but for paths and addresses."""
    told = [text for text in overrides if not text.startswith(("dataset.path=", "tracking."))]
    return " ".join(told)[:200] or None
