"""A run in MLflow that another process keeps, so that neither its import nor a request waits for training.

One such process serves all runs of this one, and ends with it. What it is asked, and answers, are lines of
JSON; what is asked of one run is done in order, and no run waits for another.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from mlp_tape import errors
from mlp_tape.errors import MlpTapeError, TrackingError
from mlp_tape.journal import Journal, Row
from mlp_tape.record import Record
from mlp_tape.redact import without_password
from mlp_tape.tracker import Show

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # they are for the process that asks, which will say what to do
sys.path.insert(0, sys.argv[1])
from mlp_tape import quiet
with quiet.without_garbage_collection():
    from mlp_tape import keeper
keeper.main()
"""
GRACE = 1.0  # seconds for an answer that is late


class CourierRun:
    """One run in an MLflow store; a Tracker.

    Args:
        uri: of the store.
        experiment: its name; made if it is not there.
        record: of the run, which is told its MLflow id.
        journal: whose rows are delivered.
    """

    def __init__(self, uri: str, experiment: str, record: Record, journal: Journal) -> None:
        self._keeper, self._record, self._journal = _keeper(), record, journal
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
        self._record.run_id, self.link, self.overview = (
            answer[key] for key in ("run_id", "link", "overview")
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
        if self._record.settings.get("tracking", {}).get("system_metrics"):
            wait([self._ask("measure_last")], GRACE)
        answer = self._ask("close", record=_plain(self._record), patience=patience, at_most=limit)
        pauses = itertools.repeat(0.5) if limit is None else itertools.repeat(0.5, int(2 * (limit + GRACE)))
        for pause in pauses:
            if wait([answer], pause).done:
                break
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
    _keeper().ask("send", directory=str(directory), at_most=None if at_most == math.inf else at_most).result()


def see_off() -> None:
    """Ends the other process, if there is one, so that it outlives this one not even for a moment."""
    for keeper in _running.values():
        keeper.end()


def _plain(record: Record) -> dict[str, Any]:
    """The record as JSON holds it."""
    return dataclasses.asdict(record) | {"directory": str(record.directory)}


class _Keeper:
    """The other process, and who waits for which of its answers."""

    def __init__(self) -> None:
        self.when_told: dict[str, dict[str, Callable[[Any], None]]] = {}  # by directory and what is told
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers, self._writing = itertools.count(), threading.Lock()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, for as long as the process lives
        self._program = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # what MLflow's dependencies are warned of is not to become an error
            env={key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"},
            text=True,
            encoding="utf-8",
        )
        threading.Thread(target=self._read, name="courier", daemon=True).start()

    @property
    def is_there(self) -> bool:
        """Whether the process lives."""
        return self._program.poll() is None

    def end(self) -> None:
        """Lets the process go, which has nothing left to do."""
        assert self._program.stdin
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._program.stdin.close()
            self._program.wait(GRACE)

    def ask(self, what: str, **about: Any) -> Future[Any]:
        """Asks for something; the answer may be waited for, and may be an MlpTapeError."""
        answer: Future[Any] = Future()
        with self._writing:
            number = next(self._numbers)
            self._waiting[number] = answer
            try:
                print(
                    json.dumps({"number": number, "what": what} | about), file=self._program.stdin, flush=True
                )
            except OSError:
                self._end(number, lambda: answer.set_exception(self._gone()))
        return answer

    def _read(self) -> None:
        assert self._program.stdout
        for line in self._program.stdout:
            said = json.loads(line)
            if "number" not in said:
                self.when_told[said["directory"]][said["told"]](said["answer"])
                continue
            answer = self._waiting[said["number"]]
            if "error" in said:
                kind, what, hint = said["error"]
                done = functools.partial(answer.set_exception, getattr(errors, kind)(what, hint))
            else:
                done = functools.partial(answer.set_result, said["answer"])
            self._end(said["number"], done)
        for number, answer in list(self._waiting.items()):
            self._end(number, functools.partial(answer.set_exception, self._gone()))

    def _gone(self) -> TrackingError:
        self._errors.seek(0)
        last = self._errors.read().strip().rpartition("\n")[2]
        what = f"the process that talks to MLflow is gone{f': {last}' if last else ''}"
        return TrackingError(what, "type tracking.enabled=false to do without it")

    def _end(self, number: int, done: Callable[[], None]) -> None:
        self._waiting.pop(number, None)
        with contextlib.suppress(Exception):  # was answered already
            done()


_running: dict[Path, _Keeper] = {}  # by the directory that it was started in, where MLflow puts artifacts
_starting = threading.Lock()


def _keeper() -> _Keeper:
    """The other process; started where there is none."""
    here = Path.cwd()
    with _starting:
        if here not in _running or not _running[here].is_there:
            _running[here] = _Keeper()
        return _running[here]
