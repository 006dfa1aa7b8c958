"""Watches the jobs of a sweep, in whichever process they are, and tells what becomes of them."""

import contextlib
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from mlp_tape.errors import MlpTapeError
from mlp_tape.storage import journal, lock, run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.summary import ACCURACY, first_line
from mlp_tape.system import signals
from mlp_tape.system.console import Console

PAUSE = 0.25  # seconds between two looks


class Monitor(threading.Thread):
    """The thread; also passes a signal that came to the sweep's own process on to jobs in others.

    Args:
        ledger: of the sweep.
        console: is told when a job begins and when it is over.
        planned: how many jobs there will be; None where a sweeper finds out as it goes.
        finished: is called with all jobs whenever others have finished.
    """

    def __init__(
        self,
        ledger: SweepDirectory,
        console: Console,
        planned: int | None,
        finished: Callable[[list[RunRecord]], None],
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self._ledger, self._console, self._planned, self._finished = ledger, console, planned, finished
        self._over = threading.Event()
        self._told: dict[Path, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        for job in map(as_it_is, self._ledger.jobs()):  # what an earlier process left of them is no news
            self._told[job.directory] = job.status, job.ended
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Looks again and again, and once more when the sweep is over."""
        with self._console.jobs_progress() as show:
            while not self._over.is_set():
                with contextlib.suppress(OSError, MlpTapeError):  # a full disk, of which the jobs tell
                    self._look(show)
                signal = signals.asked()
                if signal and not self._ledger.stop_file.exists():
                    self._ledger.ask_to_stop(signal.name)
                self._over.wait(PAUSE)
            self._look(show)

    def _look(self, show: Callable[[int, int | None, dict[str, tuple[int, int]]], None]) -> None:
        jobs = [as_it_is(job) for job in self._ledger.jobs()]
        news = [job for job in jobs if self._told.get(job.directory) != (job.status, job.ended)]
        for job in news:
            self._told[job.directory] = job.status, job.ended
            self._tell(job)
        if any(job.status == "FINISHED" for job in news):
            self._finished(jobs)
        at_work = [job for job in jobs if job.status == "RUNNING"]
        show(len(jobs) - len(at_work), self._planned, {label(job): _progress(job) for job in at_work})

    def _tell(self, job: RunRecord) -> None:
        if job.status == "RUNNING":
            if not self._console.animated:
                self._console.line(f"{label(job)}  began")
        elif job.status == "FINISHED":
            accuracy = f"test accuracy {job.results[ACCURACY]:.4f}"
            self._console.line(f"{label(job)}  {accuracy}  {job.seconds:.1f} s")
        else:
            self._console.error(f"{label(job)}  {job.status}: {first_line(job.reason)}")


def label(job: RunRecord) -> str:
    """The job as a person is told of it."""
    return f"job {job.directory.name}  {job.name}"


def as_it_is(job: RunRecord) -> RunRecord:
    """What is known of a job; KILLED where it says RUNNING and its process is gone from this machine."""
    if job.status != "RUNNING" or job.host != platform.node() or lock.is_at_work(job.directory, job.pid):
        return job
    return run_record.left(job.directory)  # read again: it may have ended since


def _progress(job: RunRecord) -> tuple[int, int]:
    """Steps done, and steps in all."""
    step = journal.last_step(job.directory, "train/loss")
    return 0 if step is None else step + 1, job.steps
