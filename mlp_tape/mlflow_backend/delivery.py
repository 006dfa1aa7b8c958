"""Sends the journal's rows from a thread of its own, in batches, and tries again where that fails."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from mlp_tape.storage.journal import Journal, Row

BATCH = 1_000  # rows a request: the most that MLflow takes
PAUSE = 1.0  # seconds between two looks into the journal
LONGEST_PAUSE = 10.0  # seconds between two tries while there is no answer
WORK = 0.25  # seconds of processor time: more than it takes to put a request together that nobody answers
NICENESS = 10  # training goes first where there are not cores enough

Job = Callable[[], None]


class Delivery:
    """The threads; rows are acknowledged in the journal once they are sent.

    One sends while the run trains, and gives way to training. Another one takes over at its end, when
    somebody waits: the first would hardly get on where other programs keep the machine busy.

    Args:
        journal: whose rows are sent.
        send: takes at most 1,000 rows, and raises where they did not arrive.
        awaited: whether somebody waits for the jobs that are done first: a thread that gives way to others
            would take seconds to open a run.
    """

    def __init__(self, journal: Journal, send: Callable[[list[Row]], None], awaited: bool = True) -> None:
        self._beside: threading.Thread | None = None
        self._rest: threading.Thread | None = None
        self._attempt: tuple[int | None, float] = (None, 0.0)
        self._journal, self._send, self._awaited = journal, send, awaited
        self._first: list[Job] = []
        self._soon: list[Job] = []
        self._last: list[Job] = []
        self._over = threading.Event()
        self._wake = threading.Event()
        self._given_up = threading.Event()
        self._longer = PAUSE  # the next pause after a failure
        self._answered = 0.0
        self._error = ""

    def start(self, *first: Job) -> None:
        """Begins to send, after some jobs that are done in order; each is tried again where it raises.

        The rows of the first second then go together: a sweep may have many runs that are no longer.
        """
        self._first = [*first, lambda: self._pause(PAUSE)] if first else []
        self._beside = threading.Thread(target=self._send_beside, name="delivery", daemon=True)
        self._beside.start()

    @property
    def has_begun(self) -> bool:
        """Whether `start` was called."""
        return self._beside is not None

    def _send_beside(self) -> None:
        """Sends until the other thread takes over."""
        nice = False
        while self._rest is None:
            if not (nice or (self._awaited and self._first)):
                nice = _be_nice()
            if not self._send_next():
                self._pause(PAUSE)

    def _take_over(self) -> None:
        """Lets a thread of usual priority go on, from what the other one is at."""
        if self._rest is None:
            self._rest = threading.Thread(target=self._send_rest, name="delivery of the rest", daemon=True)
            self._rest.start()
        self._wake.set()

    def _send_rest(self) -> None:
        """Sends until `finish` is called and all is sent, or it is given up."""
        if self._beside:
            self._beside.join()
        while not self._given_up.is_set():
            over = self._over.is_set()  # asked before the look: no row comes after the last look
            if not self._send_next():
                if over:
                    return
                self._pause(PAUSE)

    def _send_next(self) -> bool:
        """Does what comes next, and pauses where that fails; returns whether there was something to do."""
        over = self._over.is_set()
        self._attempt = _own_clock(), time.thread_time()
        try:
            busy = _do_next(self._first) or self._send_some() or _do_next(self._soon)
            busy = busy or (over and _do_next(self._last))
        except Exception as error:
            self._error = why(error)
            if over:
                self._given_up.wait(PAUSE)
            else:
                self._pause(self._longer)
            self._longer = min(2 * self._longer, LONGEST_PAUSE)
            return True
        self._error, self._longer = "", PAUSE
        self._answered = time.monotonic()
        return busy

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def do_soon(self, job: Job) -> None:
        """Does something once the rows that are there are sent; tried again where it raises.

        It is for the time after training: the thread that gives way to that does nothing more.
        """
        self._soon.append(job)
        self._take_over()

    def _send_some(self) -> bool:
        """Sends one batch, if there are rows."""
        rows, position = self._journal.unsent(BATCH)
        if rows:
            self._send(rows)
            self._journal.acknowledge(position)
        return bool(rows)

    def finish(
        self,
        first: Sequence[Job] = (),
        last: Sequence[Job] = (),
        patience: float = 30.0,
        at_most: float = float("inf"),
        show: Callable[[int], None] = lambda rows: None,
    ) -> str:
        """Waits until all is sent, for as long as something arrives, or is computed to be sent.

        Args:
            first: done before the rows that are left, in order; each is tried again where it raises.
            last: done after the last row, likewise.
            patience: seconds without an answer after which it is given up.
            at_most: seconds after which it is given up even so.
            show: is told every half second how many rows are left.

        Returns:
            What stood in the way, or nothing.
        """
        self._last = list(last)
        self._first.extend(first)
        began = self._answered = time.monotonic()
        self._over.set()
        self._take_over()
        assert self._rest
        self._rest.join(min(patience, at_most, 0.5))
        while self._rest.is_alive() and time.monotonic() < min(began + at_most, self._answered + patience):
            left = self._journal.count_unsent()
            if left:
                show(left)
            self._rest.join(0.5)
            if self._has_worked():
                self._answered = time.monotonic()
        self._given_up.set()
        return self._error or "no answer" if self._rest.is_alive() or self._error else ""

    def _has_worked(self) -> bool:
        """Whether the present attempt has computed something since this was last asked: it does not hang.

        On a busy machine, what takes a second elsewhere, such as to put a model together, may take a minute.
        """
        clock, before = self._attempt
        if clock is None:
            return False
        try:
            now = time.clock_gettime(clock)
        except OSError:  # the thread has just ended
            return False
        if now - before < WORK:
            return False
        self._attempt = clock, now
        return True


def why(error: Exception) -> str:
    """The line of an error that says what is wrong, without the advice to programmers before it."""
    lines = [line for line in str(error).splitlines() if not line.startswith("(raised as a result of ")]
    return lines[0] if lines else type(error).__name__


def _do_next(jobs: list[Job]) -> bool:
    """Does the first of some jobs and strikes it off, if there is one left."""
    if jobs:
        jobs[0]()
        del jobs[0]
        return True
    return False


def _be_nice() -> bool:
    """Lets the other threads go first; Linux alone has this for a single thread. It is for good."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            nice = max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, nice)
    return True


def _own_clock() -> int | None:
    """The clock by which other threads see the processor time of this one, where the system has one."""
    if sys.platform == "linux":
        return time.pthread_getcpuclockid(threading.get_ident())
    return None
