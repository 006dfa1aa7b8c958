"""Uploads to an artifact store, which may be unavailable while the tracking server responds."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from mlp_tape.mlflow_backend.failures import IncompleteError
from mlp_tape.mlflow_backend.threads import WorkMeter

ANSWER = 10.0  # seconds without progress after which the rest of a delivery goes on
LOOK = 0.25  # seconds between two looks at an upload
LONGEST_PAUSE = 60.0  # seconds between two attempts


class Uploads:
    """The uploads of a run, one at a time, each in a thread that an attempt may leave to the next one.

    Attributes:
        result: what the last upload returned.
        failures: number of attempts that failed since the last success.
    """

    def __init__(self) -> None:
        self.result: Any = None
        self._current: _Upload | None = None
        self._pause = self._next = 0.0
        self.failures = 0
        self._error: IncompleteError | None = None

    def run(self, what: str, work: Callable[[], Any]) -> Iterator[None]:
        """Runs an upload, or continues to wait for it if it is the one that an earlier attempt has begun.

        Args:
            what: name of the upload.
            work: function that uploads.

        Yields:
            None, whenever the upload has made progress.

        Raises:
            TimeoutError: there is no progress.
            Exception: any error of the upload.
        """
        left = self._current
        if left and left.what != what:  # what it has uploaded is uploaded again
            yield from left.wait()
            left = None
        self._current = left or _Upload(what, work)
        yield from self._current.wait()
        done, self._current = self._current, None
        if done.error:
            raise done.error
        self.result, self._pause, self.failures = done.result, 0.0, 0

    def postpone(self, error: IncompleteError) -> None:
        """Postpones the next attempt after an error, for longer each time until an upload succeeds."""
        self._error = error
        self.failures += 1
        self._pause = min(max(1.0, 2 * self._pause), LONGEST_PAUSE)
        self._next = time.monotonic() + self._pause

    def retry(self) -> None:
        """Allows another attempt at once, as somebody is waiting."""
        self._next = 0.0

    @property
    def postponed_by(self) -> IncompleteError | None:
        """The last error, if it is too early for another attempt."""
        return self._error if time.monotonic() < self._next else None


class _Upload(threading.Thread):
    def __init__(self, what: str, work: Callable[[], Any]) -> None:
        super().__init__(name="upload", daemon=True)
        self.what, self._work = what, work
        self.result: Any = None
        self.error: Exception | None = None
        self._meter: WorkMeter | None = None
        self.start()

    def run(self) -> None:
        self._meter = WorkMeter()
        try:
            self.result = self._work()
        except Exception as error:
            self.error = error

    def wait(self) -> Iterator[None]:
        """Waits for the end; yields when the thread has computed something, raises TimeoutError."""
        last = time.monotonic()
        while True:
            self.join(LOOK)
            if not self.is_alive():
                return
            if self._meter and self._meter.has_worked():
                last = time.monotonic()
                yield
            elif time.monotonic() - last > ANSWER:
                raise TimeoutError(f"no answer within {ANSWER:g} seconds")
