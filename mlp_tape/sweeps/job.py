"""One job of a sweep, in whichever process it is: claimed, then run, gone on with or passed over."""

import contextlib
import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mlp_tape.config.settings import Settings, to_dict
from mlp_tape.errors import BrokenFileError, ConfigError
from mlp_tape.runs.metadata import Job
from mlp_tape.runs.run import execute_run
from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.system import exit, signals
from mlp_tape.system.redaction import without_password

OF_THE_SWEEP = ("sweep.", "sweep=", "cluster=")  # overrides that say nothing of a single run


def run(settings: Settings, sweep: Path, number: int, overrides: list[str], folder: str = "") -> float | None:
    """Runs a job, if it has not finished before.

    A job that fails says so in its record, in MLflow and in the sweep's table, and lets the others go on.

    Args:
        settings: of the job, checked.
        sweep: the sweep's directory.
        number: the job's in this command, from 0.
        overrides: of the job.
        folder: the name of its directory, where that is not to be a number.

    Returns:
        The last test accuracy, 0 to 1; None where there is none.

    Raises:
        Stopped: a signal came to the process of the sweep itself.
    """
    parent, ledger = run_record.read(sweep), SweepDirectory(sweep)
    overrides = [text for text in overrides if not text.lstrip("+").startswith(OF_THE_SWEEP)]
    typed = {_plain(text) for text in parent.overrides}
    swept = [_plain(without_password(text)) for text in overrides]
    name = " ".join(text.lstrip("+") for text in swept if text not in typed)[:200]
    here = parent.host == platform.node() and parent.pid == os.getpid()
    if not here:
        exit.leave_at_the_interpreters_end()
    directory = None
    with signals.on_file(ledger.stop_file), contextlib.nullcontext() if here else _signals():
        try:
            signals.raise_if_asked()
            dataset = None
            try:
                dataset = ledger.dataset(settings.dataset)
            finally:
                directory = ledger.claim(settings, dataset, number, folder)
            place = Job(name or f"job {number}", parent.run_id, dataset)
            return execute_run(settings, directory, overrides, place)
        except (Exception, KeyboardInterrupt) as error:
            if here and signals.asked():
                raise
            if directory is None and not signals.reason():  # the sweep itself cannot go on
                raise
            if directory and not signals.reason():
                reason = without_password(f"{type(error).__name__}: {error}")
                _note_failure(directory, reason, name, settings, overrides)
                if settings.sweep.fail_fast:
                    ledger.ask_to_stop(f"sweep.fail_fast: {name or directory.name} failed")
            return None


def _plain(override: str) -> str:
    """An override without the quotes and backslashes that Hydra puts in, or takes out, as it goes."""
    return re.sub(r"[\\'\" ]", "", override)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Ends the job in order on a signal to its own process; Python allows that in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with signals.on_signals():
        yield


def _note_failure(directory: Path, reason: str, name: str, settings: Settings, overrides: list[str]) -> None:
    """Writes down why a job failed, also where it did so before it could write that itself."""
    try:
        note = run_record.read(directory)
    except (ConfigError, BrokenFileError):
        note = RunRecord(directory, name=name, settings=to_dict(settings))
        note.overrides = [without_password(text) for text in overrides]
    if (note.status, note.reason) == ("FAILED", reason):  # it has written that itself
        return
    note.status, note.reason, note.ended = "FAILED", reason, time.time()
    with contextlib.suppress(OSError):  # of a full disk, the sweep will hear when it writes its table
        note.save()
