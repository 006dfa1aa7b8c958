"""A joblib backend for `hydra/launcher=joblib` in which a worker that dies does not affect other jobs."""

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
    """Registers the backend under the name `loky`, which Hydra's launcher requests.

    When a worker of the original loky dies, loky kills all others.
    """
    joblib.register_parallel_backend("loky", OneProcessEach)


class OneProcessEach(ParallelBackendBase):  # type: ignore[misc]
    """A joblib backend of independent processes that share the cores and are replaced when they die."""

    supports_retrieve_callback = True

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Returns the number of processes for `n_jobs`: if negative, -1 is one per core, -2 one fewer, ...

        None, the default of other packages such as scikit-learn, stands for one.
        """
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(1, joblib.cpu_count() + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **others: Any) -> int:
        """Prepares the processes, which start with their first job, and returns their number."""
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
        """Runs a batch of Hydra's jobs in the next free process."""
        future = self._threads.submit(self._run, func)
        future.add_done_callback(callback)
        return future

    def _run(self, func: Batch) -> Any:
        process = self._idle.get()
        try:
            if signals.received():  # the jobs would not begin, so no process is started for them
                return _empty_results(func)
            return cloudpickle.loads(process.submit(_call, cloudpickle.dumps(func)).result())
        except BrokenProcessPool:  # the record of the job shows how far it got
            process.shutdown()
            process = self._process()
            return _empty_results(func)
        finally:
            self._idle.put(process)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Returns the results of a batch."""
        return out.result()

    def terminate(self) -> None:
        """Cancels batches that have not started, waits for the others, and ends the processes."""
        self._threads.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().shutdown()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Ends the processes after their jobs, which have already been requested to stop."""
        self.terminate()
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel)


def _empty_results(func: Batch) -> list[JobReturn]:
    """Returns the results reported to Hydra for jobs that did not begin, or whose process died."""
    return [JobReturn(status=JobStatus.COMPLETED)] * len(func)  # type: ignore[arg-type]


def _begin(cores: int) -> None:
    """Initializes a new process."""
    os.environ["OMP_NUM_THREADS"] = str(cores)
    exit.own_temporary_directory()
    exit.leave_at_interpreter_exit()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # between jobs; a terminal sends Ctrl-C to all processes
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


_job_lock = threading.Lock()


def _end_with_the_parent() -> None:
    """Waits until the sweep's process dies, then stops the job in an orderly way and ends this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    with _job_lock:
        exit.leave(1)


def _call(pickled: bytes) -> bytes:
    """Runs a batch of jobs, serialized by cloudpickle, which supports lambdas such as Hydra's resolvers."""
    with _job_lock:
        result: bytes = cloudpickle.dumps(cloudpickle.loads(pickled)())
    return result
