"""A run in MLflow that another process keeps, so that neither its import nor a request waits for training.

What is asked of one run is done in order, and no run waits for another.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

from mlp_tape.errors import MlpTapeError, TrackingError
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import signals
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking import client_process
from mlp_tape.tracking.client_process import GRACE
from mlp_tape.tracking.tracker import Show

HURRY = 1.0  # seconds to send what is left of a run once somebody waits for the program to stop


class ClientRun:
    """One run in an MLflow store; a Tracker.

    Args:
        uri: of the store.
        experiment: its name; made if it is not there.
        record: of the run, which is told its MLflow id.
        journal: whose rows are delivered.
    """

    def __init__(self, uri: str, experiment: str, record: RunRecord, journal: Journal) -> None:
        self._keeper, self._record, self._journal = client_process.running(), record, journal
        self.link = self.overview = ""
        self._keeper.when_told[str(record.directory)] = {
            "opened": self._opened_late,
            "measured": self._measured,
        }
        self._samples: itertools.count[int] | None = None
        self._ask = functools.partial(self._keeper.ask, directory=str(record.directory))
        self._known = self._ask("know", uri=uri, experiment=experiment, record=_plain(record))
        record.uri = without_password(uri)

    def open(self, say: Callable[[str], None]) -> None:
        """As `Tracker.open`."""
        for line in self._known.result():
            say(line)
        self._opened(self._ask("open", record=_plain(self._record)).result())

    def _opened(self, answer: dict[str, str]) -> None:
        self._record.run_id, self._record.name, self.link, self.overview = (
            answer[key] for key in ("run_id", "name", "link", "overview")
        )

    def _opened_late(self, answer: dict[str, str]) -> None:
        self._opened(answer)
        with contextlib.suppress(OSError):  # of a full disk, training will hear
            self._record.save()

    def begin(self) -> None:
        """As `Tracker.begin`."""
        begun = self._ask("begin", record=_plain(self._record))
        if not self._record.parent:  # a job does not wait: the last one's end may be what is answered first
            begun.result()

    def _measured(self, values: dict[str, float]) -> None:
        """Takes what was measured of the machine; samples are counted from 0 on, also where it is resumed."""
        if self._samples is None:
            self._samples = itertools.count(max(map(self._journal.next_step, values)))
        step, now = next(self._samples), int(1000 * time.time())
        with contextlib.suppress(OSError, ValueError):  # of a full disk, training will hear
            self._journal.append(Row(key, step, value, now) for key, value in values.items())

    def give_model(self) -> None:
        """As `Tracker.give_model`."""
        self._ask("give_model")

    def close(self, patience: float, at_most: float, show: Show) -> str:
        """As `Tracker.close`."""
        limit = None if at_most == math.inf else at_most
        ends = time.monotonic() + at_most + GRACE
        if self._record.settings.get("tracking", {}).get("system_metrics"):
            wait([self._ask("measure_last")], GRACE)
        answer = self._ask("close", record=_plain(self._record), patience=patience, at_most=limit)
        while not wait([answer], 0.5).done and time.monotonic() < ends:
            if signals.stop_reason():
                ends = min(ends, time.monotonic() + HURRY)
            left = self._journal.count_unsent()
            if left:
                show(left)
        try:
            return str(answer.result(0))
        except TimeoutError:
            return "no answer"
        except MlpTapeError as error:
            return error.what


def send(directory: Path, at_most: float) -> None:
    """Does what `sync.send` does, in the other process.

    Args:
        directory: of a run that is over.
        at_most: seconds.

    Raises:
        MlpTapeError: as there.
    """
    keeper = client_process.running()
    limit = None if at_most == math.inf else at_most
    answer = keeper.ask("send", directory=str(directory), at_most=limit)
    try:
        answer.result(None if limit is None else limit + GRACE)
    except TimeoutError as error:
        raise TrackingError("no answer", "try again later") from error


def _plain(record: RunRecord) -> dict[str, Any]:
    """The record as JSON holds it."""
    return dataclasses.asdict(record) | {"directory": str(record.directory)}
