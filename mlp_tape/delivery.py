"""Sends the journal's rows from a thread of its own, in batches, and tries again where that fails."""

import threading
import time
from collections.abc import Callable

from mlp_tape.journal import Journal, Row

BATCH = 1_000  # rows a request: the most that MLflow takes
PAUSE = 1.0  # seconds between two looks into the journal
LONGEST_PAUSE = 30.0  # seconds between two tries while there is no answer


class Delivery(threading.Thread):
    """The thread; rows are acknowledged in the journal once they are sent.

    Args:
        journal: whose rows are sent.
        send: takes at most 1,000 rows, and raises where they did not arrive.
    """

    def __init__(self, journal: Journal, send: Callable[[list[Row]], None]) -> None:
        super().__init__(name="delivery", daemon=True)
        self._journal, self._send = journal, send
        self._over = threading.Event()
        self._deadline = float("inf")
        self._error: Exception | None = None

    def run(self) -> None:
        """Sends until `finish` is called and all is sent, or its time has passed."""
        pause = PAUSE
        while True:
            over = self._over.is_set()  # asked before the look: no row comes after the last look
            try:
                sent = self._send_some()
            except Exception as error:
                self._error = error
                if time.monotonic() + pause > self._deadline:
                    return
                time.sleep(pause) if over else self._over.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            self._error, pause = None, PAUSE
            if over and not sent:
                return
            if not sent:
                self._over.wait(PAUSE)

    def _send_some(self) -> int:
        """Sends one batch; returns how many rows there were."""
        rows, position = self._journal.unsent(BATCH)
        if rows:
            self._send(rows)
            self._journal.acknowledge(position)
        return len(rows)

    def finish(self, seconds: float) -> str:
        """Waits until all is sent, at most so long; returns what stood in the way, or nothing."""
        if self.ident is None:  # not started, so nothing was promised
            return ""
        self._deadline = time.monotonic() + seconds
        self._over.set()
        self.join(seconds)
        if self.is_alive():
            return str(self._error or f"no answer in {seconds:.0f} s")
        return str(self._error or "")
