"""The tracker that lets another process deliver the directory of a run to MLflow.

Neither the import of MLflow nor a request delays training.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlp_tape.errors import TrackingError
from mlp_tape.storage import delivery_record, journal, lock, run_record
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import signals
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking import client_process, ui
from mlp_tape.tracking.client_process import MlflowProcess
from mlp_tape.tracking.tracker import Show
from mlp_tape.tracking.ui import Link
from mlp_tape.tracking.uri import incomplete_error, recorded_uri

HURRY = 1.0  # seconds to deliver what is left after a request to stop
GRACE = 5.0  # seconds to wait for the last system metrics
PATIENCE = 30.0  # seconds without progress after which `send` gives up
START = 120.0  # seconds of waiting without a sign of life after which the process cannot be started
LOOK = 0.5  # seconds between two looks at the process
NO_ANSWER = "no answer"
WITHOUT = "type tracking.enabled=false to do without it"


class ClientRun:
    """A run in an MLflow store; a Tracker.

    Args:
        uri: URI of the store.
        record: record of the run.
        rows: journal of the run, to which system metrics are appended; None if it has ended.
    """

    def __init__(self, uri: str, record: RunRecord, rows: Journal | None = None) -> None:
        self._uri, self._record, self._rows = uri, record, rows
        self._changed = threading.Condition()
        self._prepared: list[str] | None = None
        self._open = self._measured_all = False
        self._error: tuple[str, str] | None = None  # of the last attempt: what is wrong, and a hint
        self._final = False  # whether another attempt would end with the same error
        self._warn: Callable[[str], None] | None = None
        self._progress = 0.0  # when something was last delivered or computed
        self._samples: itertools.count[int] | None = None
        self._process = self._listened()
        record.uri = without_password(uri)

    def prepare(self, experiment: str) -> None:
        """Lets the store be opened while this process prepares to train."""
        directory, model = self._record.directory, self._record.full
        self._process.send("prepare", directory, uri=self._uri, experiment=experiment, model=model)

    def link(self) -> Link | None:
        """As `Tracker.link`."""
        return ui.link(self._uri, self._record) if self._record.delivery.experiment_id else None

    @property
    def hint(self) -> str:
        """What to do about the error of the last attempt; empty if there is nothing to say."""
        return self._error[1] if self._error else ""

    def open(self, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """As `Tracker.open`."""
        self._warn = warn
        if self._record.parent:
            self._deliver(urgent=False)
            return
        self._wait_for_start(lambda: self._prepared is not None)
        for line in self._prepared or []:
            say(line)
        self._deliver(urgent=True)
        self._wait_for_start(lambda: self._open)

    def _wait_for_start(self, is_done: Callable[[], bool]) -> None:
        """Waits for the process; raises TrackingError if it reports an error, is gone or does not run.

        What counts is the time waited here, not the time that passed: after Ctrl-Z, or on a machine that was
        paused, the last sign of life is old although the process is well.
        """
        waited, last_sign = 0.0, self._process.last_sign
        while not is_done():
            with self._changed:
                self._changed.wait_for(lambda: is_done() or self._error, LOOK)
            signals.raise_if_stopped()
            if self._error and not is_done():
                raise TrackingError(*self._error)
            if not self._process.exists and not is_done():  # ended by this process, which notifies nobody
                raise TrackingError(self._process.epitaph, WITHOUT)
            heard, last_sign = self._process.last_sign != last_sign, self._process.last_sign
            waited = 0.0 if heard else waited + LOOK
            if waited > START:
                raise TrackingError(
                    f"the process that talks to MLflow does not respond{self._process.last_line}",
                    f"try again, or {WITHOUT}",
                )

    def model_ready(self) -> None:
        """As `Tracker.model_ready`."""
        self._deliver(urgent=True)

    def close(self, patience: float, at_most: float, show: Show) -> str:
        """As `Tracker.close`."""
        try:
            return self._wait_until_sent(patience, at_most, show)
        finally:
            self._process.forget(self._record.directory)

    def _wait_until_sent(self, patience: float, at_most: float, show: Show) -> str:
        self._deliver(urgent=True)
        began = self._progress = time.monotonic()
        restarted = False
        while True:
            with self._changed:
                is_over = self._changed.wait_for(
                    lambda: self._record.sent or self._final, min(patience, at_most, LOOK)
                )
                if is_over:
                    return (
                        "" if self._record.sent or not self._error else "; ".join(filter(None, self._error))
                    )
            now = time.monotonic()
            if not self._process.exists and not restarted:
                restarted = True
                self._deliver(urgent=True)
            if signals.stop_reason():
                at_most = min(at_most, now - began + HURRY)
            if not self._process.is_ready:  # it imports MLflow, which is progress
                self._progress = max(self._progress, self._process.last_sign)
            if now > min(began + at_most, self._progress + patience):
                self._process.send("give up", self._record.directory)
                return self._error[0] if self._error else NO_ANSWER
            left = journal.count_after(self._record.directory, self._record.delivery.position)
            if left:
                show(left)

    def stop_measuring(self) -> None:
        """Waits for the last system metrics; call it before the end of the run is recorded."""
        self._process.send("stop measuring", self._record.directory)
        with self._changed:
            self._changed.wait_for(lambda: self._measured_all, GRACE)

    def _deliver(self, urgent: bool) -> None:
        """Lets the process deliver what is in the directory; starts it again if it is gone."""
        if not self._process.exists:
            self._process = self._listened()
        self._error, self._final = None, False
        self._process.send("deliver", self._record.directory, uri=self._uri, urgent=urgent)

    def _listened(self) -> MlflowProcess:
        process = client_process.running()
        process.listen(self._record.directory, self._on_notification)
        return process

    def _on_notification(self, notification: dict[str, Any]) -> None:
        event = notification["event"]
        with self._changed:
            if event == "step" or (event == "working" and self._error is None):
                self._progress, self._error = time.monotonic(), None
            if event == "step":
                self._record.delivery = delivery_record.read(self._record.directory)
                self._open = True
            elif event == "prepared":
                self._prepared = notification["lines"]
            elif event == "measured":
                self._append(notification["values"])
            elif event == "measured all":
                self._measured_all = True
            elif event == "failed":
                self._error = notification["what"], notification["hint"]
                self._final = notification.get("final", False)
                self._warn_once(notification)
            elif event == "gone":
                self._error = self._process.epitaph, WITHOUT
            self._changed.notify_all()

    def _warn_once(self, notification: dict[str, Any]) -> None:
        """Warns of what is refused while the rest is recorded, as long as the run is training."""
        if self._warn and self._open and notification.get("refused"):
            warn, self._warn = self._warn, None
            what, hint = notification["what"], notification["hint"]
            warn(
                f"{what[0].upper()}{what[1:]}\nTo cure it: {hint}\n"
                f"Everything else is recorded. To send the rest later: {self._record.sync}"
            )

    def _append(self, values: dict[str, float]) -> None:
        """Appends system metrics to the journal; their steps count the samples, also in a resumed run."""
        if self._rows is None:
            return
        if self._samples is None:
            self._samples = itertools.count(max(map(self._rows.next_step, values)))
        step, now = next(self._samples), int(1000 * time.time())
        with contextlib.suppress(OSError, ValueError):  # training reports a full disk
            self._rows.append(Row(key, step, value, now) for key, value in values.items())


def send(directory: Path, at_most: float) -> None:
    """Delivers what MLflow is missing of a run that has ended, in the other process.

    Args:
        directory: directory of the run.
        at_most: seconds after which to give up.

    Raises:
        ConfigError: another process is using the directory.
        TrackingError: not everything could be delivered.
    """
    with lock.hold(directory):
        record = run_record.close_abandoned(directory)
        uri = recorded_uri(record)
        run = ClientRun(uri, record)
        why_not = run.close(PATIENCE, at_most, lambda rows: None)
    if why_not:
        rows = journal.count_after(directory, record.delivery.position)
        raise incomplete_error(uri, rows, why_not, run.hint)
