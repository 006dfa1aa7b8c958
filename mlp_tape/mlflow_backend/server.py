"""The process that delivers runs to MLflow while another one trains: `tracking.client_process` starts it.

It reads the directories of runs from standard input, one message per line. Each directory has a thread, which
calls `deliver` again and again until everything in it is delivered.
"""

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_tape.errors import MlpTapeError
from mlp_tape.mlflow_backend import delivery, notifications, store
from mlp_tape.mlflow_backend.delivery import Artifact
from mlp_tape.storage import run_record
from mlp_tape.system import exit

if TYPE_CHECKING:
    from mlp_tape.mlflow_backend.system_metrics import SystemMetrics

PAUSE = 1.0  # seconds between two looks into a directory
LONGEST_PAUSE = 10.0  # seconds between two attempts while the store does not respond
WORK = 0.25  # seconds of processor time; more than a request takes to which there is no response
NICENESS = 10  # training has precedence if there are not enough processors


def main() -> None:
    """Handles the messages on standard input until it ends, and ends the process."""
    notifications.at_each_beat.append(_report_work)
    notifications.send("", "ready")
    for line in sys.stdin:
        message = json.loads(line)
        HANDLERS[message.pop("do")](**message)
    exit.leave(0)


class Follower(threading.Thread):
    """Delivers a directory until MLflow has everything, in attempts, each in a thread of its own.

    Threads have priorities: an attempt gives way to training, unless somebody is waiting for it.

    Args:
        directory: directory of the run.
        uri: URI of the MLflow store.
    """

    def __init__(self, directory: str, uri: str) -> None:
        super().__init__(name="follower", daemon=True)
        self.directory, self._uri = directory, uri
        self._urgent = self._given_up = False
        self._notified = threading.Event()
        self._uploaded: set[Artifact] = set()
        self._clock: tuple[int, float] | None = None  # of the attempt, and its value when last looked at
        self._measuring = threading.Lock()
        self._metrics: SystemMetrics | None = None

    def notify(self, urgent: bool) -> None:
        """Notifies the thread that there is something to deliver.

        Args:
            urgent: whether somebody is waiting for it.
        """
        self._given_up = False
        self._urgent = self._urgent or urgent
        self._notified.set()

    @property
    def is_notified(self) -> bool:
        """Whether it was notified since the current attempt began, and has not been told to give up."""
        return self._notified.is_set() and not self._given_up

    def give_up(self) -> None:
        """Makes the current attempt the last one."""
        self._given_up = True
        self._notified.set()

    def run(self) -> None:
        """Delivers until everything is delivered."""
        pause = PAUSE
        while True:
            self._notified.clear()
            urgent, self._urgent = self._urgent, False
            self._succeeded = self._finished = False
            attempt = threading.Thread(target=self._attempt, args=(urgent,), name="delivery", daemon=True)
            attempt.start()
            attempt.join()
            if (self._finished or self._given_up) and _forget(self):
                return
            if self._succeeded:
                pause = PAUSE
            else:
                self._urgent = self._urgent or urgent
                pause = PAUSE if urgent else min(2 * pause, LONGEST_PAUSE)
            self._notified.wait(pause)

    def _attempt(self, urgent: bool) -> None:
        self._clock = _processor_clock()
        if not urgent:
            _give_way()
        try:
            self._deliver(urgent)
            self._succeeded = True
        except MlpTapeError as error:
            self._failed(error.what, error.hint)
        except Exception as error:
            self._failed(store.why(error), "")
        finally:
            self._clock = None

    def _deliver(self, urgent: bool) -> None:
        self._measure()
        for step in delivery.deliver(Path(self.directory), self._uri, self._uploaded):
            notifications.send(self.directory, "step", step=step)
            self._clock = _processor_clock()
            if step == delivery.ENDED:
                self._finished = True
            elif not urgent and (self._urgent or step == delivery.BEGUN):
                return  # the next attempt has another priority, or sends the rows of the first second at once
        self._finished = self._finished or run_record.read(Path(self.directory)).sent

    def _failed(self, what: str, hint: str) -> None:
        self._finished = not self._is_open()  # the program reports it and ends
        notifications.send(self.directory, "failed", what=what, hint=hint)

    def _is_open(self) -> bool:
        """Whether delivery goes on after an error: the run has begun in MLflow, has ended, or is a job's."""
        try:
            record = run_record.read(Path(self.directory))
        except MlpTapeError:
            return False
        return bool(record.parent) or record.status != "RUNNING" or record.delivery.began == record.began

    def _measure(self) -> None:
        """Starts to measure the machine, if the run records that and is running."""
        with self._measuring:
            record = run_record.read(Path(self.directory))
            wanted = record.settings.get("tracking", {}).get("system_metrics")
            if wanted and record.kind == "run" and record.status == "RUNNING" and self._metrics is None:
                from mlp_tape.mlflow_backend.system_metrics import SystemMetrics  # imports psutil, an extra

                self._metrics = SystemMetrics(
                    self._uri, lambda values: notifications.send(self.directory, "measured", values=values)
                )
                self._metrics.start()

    def stop_measuring(self) -> None:
        """Measures once more, and no more after that."""
        self._measure()  # a very short run may end before the first attempt
        if self._metrics:
            self._metrics.finish()

    def has_worked(self) -> bool:
        """Whether the current attempt has used processor time since the last call: it does not hang.

        On a busy machine, what takes a second elsewhere, such as assembling a model, may take a minute.
        """
        clock = self._clock
        if clock is None:
            return False
        try:
            now = time.clock_gettime(clock[0])
        except OSError:  # the thread has just ended
            return False
        if now - clock[1] < WORK:
            return False
        self._clock = clock[0], now
        return True


_followers: dict[str, Follower] = {}
_changing = threading.Lock()


def _forget(follower: Follower) -> bool:
    """Removes a follower that has nothing left to do, unless it was notified in the meantime."""
    with _changing:
        if follower.is_notified:
            return False
        del _followers[follower.directory]
        return True


def _deliver(directory: str, uri: str, urgent: bool) -> None:
    """Begins to deliver a directory, or continues to."""
    with _changing:
        new = directory not in _followers
        if new:
            _followers[directory] = Follower(directory, uri)
        _followers[directory].notify(urgent)
        if new:
            _followers[directory].start()


def _prepare(directory: str, uri: str, experiment: str) -> None:
    """Opens the store, and closes runs in it whose processes no longer exist, in a thread of its own."""

    def prepare() -> None:
        try:
            notifications.send(directory, "prepared", lines=list(store.close_dead(uri, experiment)))
        except MlpTapeError as error:
            notifications.send(directory, "failed", what=error.what, hint=error.hint)

    threading.Thread(target=prepare, name="preparation", daemon=True).start()


def _give_up(directory: str) -> None:
    with _changing:
        if directory in _followers:
            _followers[directory].give_up()


def _stop_measuring(directory: str) -> None:
    with _changing:
        follower = _followers.get(directory)
    if follower:
        follower.stop_measuring()
    notifications.send(directory, "measured all")


HANDLERS: dict[str, Any] = {
    "prepare": _prepare,
    "deliver": _deliver,
    "give up": _give_up,
    "stop measuring": _stop_measuring,
}


def _report_work() -> None:
    """Notifies the client of each delivery that computes something, which is as good as a step."""
    with _changing:
        followers = list(_followers.items())
    for directory, follower in followers:
        if follower.has_worked():
            notifications.send(directory, "working")


def _give_way() -> None:
    """Lowers the priority of this thread for good; only Linux has priorities of threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


def _processor_clock() -> tuple[int, float] | None:
    """Returns the clock of this thread's processor time, and its value; None if there is none."""
    if sys.platform == "linux":
        return time.pthread_getcpuclockid(threading.get_ident()), time.thread_time()
    return None
