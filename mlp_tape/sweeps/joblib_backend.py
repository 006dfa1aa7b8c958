"""Processes for the jobs of `hydra/launcher=joblib`: one that dies costs its own job, and not the others."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cloudpickle
import joblib
from hydra.core.utils import JobReturn, JobStatus
from joblib import ParallelBackendBase

from mlp_tape.system import exit, signals

Batch = Callable[[], list[Any]]


def install() -> None:
    """Makes these the processes that Hydra's launcher gets, which asks joblib for `loky` by name.

    When a worker of the real loky dies, loky kills all others.
    """
    joblib.register_parallel_backend("loky", OneProcessEach)


class OneProcessEach(ParallelBackendBase):  # type: ignore[misc]
    """A joblib backend of single processes, each with its share of the cores, each replaced when it dies."""

    supports_retrieve_callback = True

    def effective_n_jobs(self, n_jobs: int) -> int:
        """How many processes `n_jobs` means: below 0, -1 for each core, -2 for all but one, ..."""
        return n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **others: Any) -> int:
        """Prepares so many processes; they start with their first job."""
        self.parallel, n = parallel, self.effective_n_jobs(n_jobs)
        self._cores = max(1, joblib.cpu_count() // n)
        self._threads = ThreadPoolExecutor(n)
        self._idle: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        for _ in range(n):
            self._idle.put(self._process())
        return n

    def _process(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(self._cores,)
        )

    def submit(self, func: Batch, callback: Callable[[Future[Any]], None]) -> Future[Any]:
        """Runs some of Hydra's jobs in the next process that is free."""
        future = self._threads.submit(self._run, func)
        future.add_done_callback(callback)
        return future

    def _run(self, func: Batch) -> Any:
        process = self._idle.get()
        try:
            if signals.asked():  # a process would be started, and would find that no job is to begin
                return _nothing(func)
            return cloudpickle.loads(process.submit(_call, cloudpickle.dumps(func)).result())
        except BrokenProcessPool:  # the job's record tells how far it got
            process.shutdown()
            process = self._process()
            return _nothing(func)
        finally:
            self._idle.put(process)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """What the jobs returned."""
        return out.result()

    def terminate(self) -> None:
        """Lets the processes go."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().shutdown()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Lets them go once their jobs have ended, which have been asked to."""
        self.terminate()
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel)


def _nothing(func: Batch) -> list[JobReturn]:
    """What Hydra is told of jobs that did not begin, or whose process died."""
    return [JobReturn(status=JobStatus.COMPLETED)] * len(func)  # type: ignore[arg-type]


def _begin(cores: int) -> None:
    """What a new process does first."""
    os.environ["OMP_NUM_THREADS"] = str(cores)
    exit.own_temporary_directory()
    exit.leave_at_the_interpreters_end()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # between jobs; on a terminal, Ctrl-C comes to all
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


_at_work = threading.Lock()


def _end_with_the_parent() -> None:
    """Ends the job in order when the sweep's process is killed, then this process, which nobody else ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    with _at_work:
        exit.leave(1)


def _call(pickled: bytes) -> bytes:
    """Runs the jobs; by cloudpickle, which takes lambdas as Hydra's resolvers have them."""
    with _at_work:
        result: bytes = cloudpickle.dumps(cloudpickle.loads(pickled)())
    return result
