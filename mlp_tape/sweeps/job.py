"""Execution of one job of a sweep, in any process: started, resumed, or skipped if it has finished."""

import contextlib
import dataclasses
import os
import platform
import re
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from mlp_tape.config.settings import Settings, is_description, to_dict
from mlp_tape.errors import BrokenFileError, ConfigError
from mlp_tape.runs.destination import of_job
from mlp_tape.runs.metadata import Job
from mlp_tape.runs.pruning import Pruning
from mlp_tape.runs.run import execute_run
from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.sweeps import objectives
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.plan import TRACEBACK, is_of_a_sweep
from mlp_tape.system import exit, program, signals
from mlp_tape.system.redaction import without_password


def run(
    settings: Settings, sweep: Path, number: int, overrides: list[str], folder: str = "."
) -> float | None:
    """Runs a job, unless it has already finished.

    The failure of a job is recorded in its record, in MLflow and in the table of the sweep. Other jobs
    continue, unless sweep.fail_fast is set.

    Args:
        settings: validated settings of the job.
        sweep: directory of the sweep.
        number: number of the job in this command, from 0.
        overrides: overrides of the job.
        folder: name of its directory; `.` for a number.

    Returns:
        The value by which the sweep chooses, such as the validation accuracy; None if the job did not finish.

    Raises:
        Stopped: the process of the sweep itself received a signal.
    """
    parent, jobs = run_record.read(sweep), SweepDirectory(sweep)
    here = parent.host == platform.node() and parent.pid == os.getpid()
    if not here:
        program.start_as(parent.program)
        exit.leave_at_interpreter_exit()
    own = [text for text in overrides if not is_of_a_sweep(text)]
    name, unresolved = _name(own, parent), settings
    settings = jobs.resolved(dataclasses.replace(settings, tracking=of_job(settings.tracking, parent)))
    command = _command(parent, [*own, *_decided(unresolved, settings)])
    directory = None
    with signals.on_file(jobs.stop_file), contextlib.nullcontext() if here else _signals():
        try:
            signals.raise_if_stopped()
            try:
                dataset = jobs.dataset(settings.dataset)
            finally:
                directory = jobs.claim(settings, number, folder)
            metric = objectives.chosen(settings)[0]
            pruning = _pruning(sweep, parent, metric, jobs.identity(settings))
            job = Job(name or f"job {number}", parent.run_id, dataset, metric, pruning)
            return execute_run(settings, directory, command, job)
        except (Exception, KeyboardInterrupt) as error:
            if here and signals.received():
                raise
            if signals.stop_reason():
                return None
            if directory is None:  # the sweep itself cannot continue
                raise
            if os.environ.get(TRACEBACK):
                traceback.print_exception(error)
            reason = without_password(f"{type(error).__name__}: {error}")
            _record_failure(directory, reason, name, settings, command)
            if settings.sweep.fail_fast:
                jobs.request_stop(f"sweep.fail_fast: {name or directory.name} failed")
            return None


def _name(overrides: list[str], sweep: RunRecord) -> str:
    """Returns the name of a job: those of its overrides that were not typed for the whole sweep."""
    typed = {_plain(text) for text in sweep.overrides}
    own = [_plain(without_password(text)) for text in overrides if not is_description(text)]
    return " ".join(text.lstrip("+") for text in own if text not in typed)[:200]


def _decided(settings: Settings, resolved: Settings) -> list[str]:
    """Returns overrides for what the sweep has decided for its jobs, so that a single run repeats them."""
    found = []
    if settings.validation_fraction is None and resolved.validation_fraction:
        found.append(f"validation_fraction={resolved.validation_fraction:g}")
    if settings.stopping.monitor != resolved.stopping.monitor:
        found.append(f"stopping.monitor={resolved.stopping.monitor}")
    return found


def _pruning(sweep: Path, parent: RunRecord, metric: str, identity: str) -> Pruning | None:
    """Returns what ends a job of a search early; None if nothing does."""
    _, _, name = metric.partition("/")
    if not parent.search or not name:
        return None
    from mlp_tape.sweeps import study

    decide = study.pruning(sweep, parent.search, identity)
    return Pruning(name, decide) if decide else None


def _command(sweep: RunRecord, overrides: list[str]) -> Command:
    """Returns what repeats a job as a single run.

    Args:
        sweep: record of the sweep.
        overrides: overrides of the job that are not Hydra's own settings.
    """
    of_hydra = [text for text in sweep.overrides if text.startswith("hydra") and not is_of_a_sweep(text)]
    mode = ["hydra.mode=RUN"] if sweep.is_multirun_by_config else []
    return Command(sweep.options, [*of_hydra, *mode, *overrides])


def _plain(override: str) -> str:
    """Removes quotes, backslashes and spaces from an override, which Hydra may add or remove."""
    return re.sub(r"[\\'\" ]", "", override)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Stops the job in an orderly way on a signal to its process; only works in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with signals.on_signals():
        yield


def _record_failure(directory: Path, reason: str, name: str, settings: Settings, command: Command) -> None:
    """Records why a job failed, even if it failed before it had a record."""
    try:
        record = run_record.read(directory)
    except (ConfigError, BrokenFileError):
        record = RunRecord(directory, name=name, settings=to_dict(settings))
        record.options = command.options
        record.overrides = [without_password(text) for text in command.overrides]
    if (record.status, record.reason) == ("FAILED", reason):  # already recorded by the job itself
        return
    record.status, record.reason, record.ended = "FAILED", reason, time.time()
    with contextlib.suppress(OSError):  # the sweep reports a full disk when it writes its table
        record.save()
