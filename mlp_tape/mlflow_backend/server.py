"""The process that delivers runs to MLflow while another one trains: `tracking.client_process` starts it.

It reads the directories of runs from standard input, one message per line. Each directory has a thread, which
calls `deliver` again and again until everything in it is delivered.
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient

from mlp_tape.errors import MlpTapeError
from mlp_tape.mlflow_backend import abandoned, delivery, failures, notifications, threads
from mlp_tape.mlflow_backend.failures import IncompleteError
from mlp_tape.mlflow_backend.threads import WorkMeter
from mlp_tape.mlflow_backend.uploads import Uploads
from mlp_tape.storage import liveness, run_record
from mlp_tape.system import exit, timeline

if TYPE_CHECKING:
    from mlp_tape.mlflow_backend.system_metrics import SystemMetrics

PAUSE = 1.0  # seconds between two looks into a directory
OFTEN = 3  # failures of an artifact store in a row, which are reported during the run
LONGEST_PAUSE = 10.0  # seconds between two attempts while the store does not respond


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

    An attempt gives way to training and waits for its turn, unless somebody is waiting for it.

    Args:
        directory: directory of the run.
        uri: URI of the MLflow store.
    """

    def __init__(self, directory: str, uri: str) -> None:
        super().__init__(name="follower", daemon=True)
        self.directory, self._uri = directory, uri
        self._urgent = self._given_up = False
        self._notified = threading.Event()
        self._uploads = Uploads()
        self._next_beat = time.monotonic() + liveness.BEAT
        self._meter: WorkMeter | None = None  # of the current attempt
        self._measuring = threading.Lock()
        self._metrics: SystemMetrics | None = None

    def notify(self, urgent: bool) -> None:
        """Notifies the thread that there is something to deliver.

        Args:
            urgent: whether somebody is waiting for it.
        """
        with _turns.changed:
            self._given_up = False
            self._urgent = self._urgent or urgent
            _turns.changed.notify_all()
        if urgent:
            self._uploads.retry()
        self._notified.set()

    @property
    def is_notified(self) -> bool:
        """Whether it was notified since the current attempt began, and has not been told to give up."""
        return self._notified.is_set() and not self._given_up

    def give_up(self) -> None:
        """Makes the current attempt the last one."""
        with _turns.changed:
            self._given_up = True
            _turns.changed.notify_all()
        self._notified.set()

    def run(self) -> None:
        """Delivers until everything is delivered."""
        pause = PAUSE
        while True:
            self._notified.clear()
            with _turns.one(at_once=lambda: self._urgent or self._given_up):
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
        self._meter = WorkMeter()
        if not urgent:
            threads.give_way()
        try:
            self._deliver(urgent)
            self._succeeded = True
        except IncompleteError as error:  # everything else was delivered
            self._succeeded, self._finished = True, error.permanent and error.ended
            refused = (error.permanent or self._uploads.failures >= OFTEN) and not error.ended
            self._failed(error.what, error.hint, refused=refused, final=self._finished)
        except MlpTapeError as error:
            self._finished = not self._is_open()  # the program reports it and ends
            self._failed(error.what, error.hint)
        except Exception as error:
            self._finished = not self._is_open()
            self._failed(failures.why(error), "")
        finally:
            self._meter = None

    def _deliver(self, urgent: bool) -> None:
        self._measure()
        for step in delivery.deliver(Path(self.directory), self._uri, self._uploads):
            notifications.send(self.directory, "step", step=step)
            self._meter = WorkMeter()
            if step == delivery.ENDED:
                self._finished = True
            elif not urgent and (self._urgent or step == delivery.BEGUN):
                return  # the next attempt has another priority, or sends the rows of the first second at once
        record = run_record.read(Path(self.directory))
        self._finished = self._finished or record.sent
        if record.status == "RUNNING" and record.run_id and time.monotonic() > self._next_beat:
            abandoned.beat(MlflowClient(self._uri), record.run_id)
            self._next_beat = time.monotonic() + liveness.BEAT

    def _failed(self, what: str, hint: str, **details: bool) -> None:
        notifications.send(self.directory, "failed", what=what, hint=hint, **details)

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
        """Whether the current attempt has used processor time since the last call: it does not hang."""
        meter = self._meter
        return bool(meter and meter.has_worked())


class Turns:
    """Lets attempts that nobody is waiting for begin one after the other.

    On a busy machine, a sweep may train a hundred jobs before one is delivered, at a low priority. Their
    attempts would keep each other from ending, and also the one that the sweep then waits for.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._in_progress = 0

    @contextlib.contextmanager
    def one(self, at_once: Callable[[], bool]) -> Iterator[None]:
        """Waits until no attempt is in progress, though not for ever, as a store may not respond.

        Args:
            at_once: whether not to wait, or no longer; called with `changed` locked, when it is notified.
        """
        with self.changed:
            self.changed.wait_for(lambda: not self._in_progress or at_once(), LONGEST_PAUSE)
            self._in_progress += 1
        try:
            yield
        finally:
            with self.changed:
                self._in_progress -= 1
                self.changed.notify_all()


_turns = Turns()
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


def _prepare(directory: str, uri: str, experiment: str, model: bool) -> None:
    """Opens the store, and closes runs in it whose processes no longer exist, in a thread of its own.

    Args:
        directory: directory of the run.
        uri: URI of the MLflow store.
        experiment: name of the experiment.
        model: whether the run will have a model.
    """

    def prepare() -> None:
        try:
            with timeline.phase("store"):
                closed = list(abandoned.close_dead(uri, experiment))
            notifications.send(directory, "prepared", lines=closed)
        except MlpTapeError as error:
            notifications.send(directory, "failed", what=error.what, hint=error.hint)
        if model:
            _prepare_models()

    threading.Thread(target=prepare, name="preparation", daemon=True).start()


@timeline.phase("preparation of models")
def _prepare_models() -> None:
    from mlp_tape.mlflow_backend import logged_model

    with contextlib.suppress(Exception):  # it is reported when a model is logged
        logged_model.warm_up()


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
