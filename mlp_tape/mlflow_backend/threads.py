"""Threads of the process that delivers: their priority, and whether they compute something."""

import contextlib
import os
import sys
import threading
import time

WORK = 0.25  # seconds of processor time; more than a request takes to which there is no response
NICENESS = 10  # training has precedence if there are not enough processors


class WorkMeter:
    """The processor time of the thread that creates it.

    On a busy machine, what takes a second elsewhere, such as assembling a model, may take a minute. Whoever
    waits for it can thus distinguish it from a request to which there is no response.
    """

    def __init__(self) -> None:
        self._clock, self._last = -1, 0.0
        if sys.platform == "linux":  # only Linux has clocks of threads
            self._clock, self._last = time.pthread_getcpuclockid(threading.get_ident()), time.thread_time()

    def has_worked(self) -> bool:
        """Returns whether the thread has used processor time since this was last true."""
        if self._clock == -1:
            return False
        try:
            now = time.clock_gettime(self._clock)
        except OSError:  # the thread has just ended
            return False
        worked = now - self._last >= WORK
        if worked:
            self._last = now
        return worked


def give_way() -> None:
    """Lowers the priority of this thread for good, and of those that it starts; only on Linux."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, niceness)
