"""A thread that monitors the jobs of a sweep in all processes, and reports their progress."""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from mlp_tape.errors import MlpTapeError
from mlp_tape.storage import journal, run_record
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TRAIN_LOSS, VALIDATION_ACCURACY
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.summary import first_line, name_of, spoken
from mlp_tape.system import signals
from mlp_tape.system.console import Console
from mlp_tape.system.formatting import count

PAUSE, LONGEST_PAUSE = 0.25, 2.0  # seconds between two polls
SHARE = 0.05  # of the time that polls may take: with 1,000 jobs, one takes 60 ms


class Monitor(threading.Thread):
    """The monitor thread, which also forwards signals from the process of the sweep to jobs in others.

    Args:
        sweep: directory of the sweep.
        console: receives a line when a job begins and when it ends.
        planned: total number of jobs; None if the sweeper does not know it in advance.
        finished: called with the records of all jobs whenever a job has finished.
        only_failures: whether only jobs that failed, but not by their settings, are reported, as a search
            reports the others itself.
    """

    def __init__(
        self,
        sweep: SweepDirectory,
        console: Console,
        planned: int | None,
        finished: Callable[[list[RunRecord]], None],
        only_failures: bool = False,
    ) -> None:
        super().__init__(name="monitor", daemon=True)
        self._sweep, self._console, self._planned, self._finished = sweep, console, planned, finished
        self._only_failures = only_failures
        self._over = threading.Event()
        self._reported: dict[Path, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        for job in map(current, self._sweep.jobs()):  # not to report jobs of earlier processes
            self._reported[job.directory] = job.status, job.ended
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Polls the jobs until the sweep is over, and once more at the end."""
        with self._console.jobs_progress() as show:
            while not self._over.is_set():
                began = time.monotonic()
                with contextlib.suppress(OSError, MlpTapeError):  # such as a full disk, which the jobs report
                    self._poll(show)
                signal = signals.received()
                if signal and not self._sweep.stop_file.exists():
                    self._sweep.request_stop(signal.name)
                self._over.wait(pause(time.monotonic() - began))
            self._poll(show)

    def _poll(self, show: Callable[[int, int | None, dict[str, tuple[int, int]]], None]) -> None:
        jobs = [current(job) for job in self._sweep.jobs()]
        changed = [job for job in jobs if self._reported.get(job.directory) != (job.status, job.ended)]
        for job in changed:
            self._reported[job.directory] = job.status, job.ended
            self._report(job)
        if any(job.status == "FINISHED" for job in changed):
            self._finished(jobs)
        running = [job for job in jobs if job.status == "RUNNING"]
        show(len(jobs) - len(running), self._planned, {label(job): _progress(job) for job in running})

    def _report(self, job: RunRecord) -> None:
        if self._only_failures and (job.status in ("RUNNING", "FINISHED") or job.has_diverged):
            return
        if job.status == "RUNNING":
            if not self._console.animated:
                self._console.line(f"{label(job)}  began")
        elif job.status == "FINISHED":
            keys = [key for key in (VALIDATION_ACCURACY, TEST_ACCURACY) if key in job.results]
            results = "  ".join(f"{spoken(key)} {job.results[key]:.4f}" for key in keys)
            if job.pruned:
                results = f"PRUNED after {count(job.pruned, 'epoch')}  {results}"
            self._console.line(f"{label(job)}  {results}  {job.seconds:.1f} s")
        else:
            self._console.error(f"{label(job)}  {job.status}: {first_line(job.reason)}")


def pause(taken: float) -> float:
    """Returns the seconds until the next poll, after one that took `taken` seconds."""
    return min(max(PAUSE, taken / SHARE), LONGEST_PAUSE)


def label(job: RunRecord) -> str:
    """Returns the name of a job in messages."""
    return f"job {job.folder}  {name_of(job)}"


def current(job: RunRecord) -> RunRecord:
    """Returns the record of a job, with status KILLED if its process on this machine no longer exists."""
    if job.status != "RUNNING" or job.is_alive:
        return job
    return run_record.read_abandoned(job.directory)  # reads it again: the job may have ended since


def _progress(job: RunRecord) -> tuple[int, int]:
    """Returns the number of steps completed and the total number of steps."""
    step = journal.last_step(job.directory, TRAIN_LOSS)
    return 0 if step is None else step + 1, job.steps
