"""The process that keeps runs in MLflow, for the one that asks it, in lines of JSON.

One serves all runs of this process, and ends with it.
"""

import contextlib
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from mlp_tape import errors
from mlp_tape.errors import TrackingError
from mlp_tape.system import exit

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # they are for the process that asks, which will say what to do
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from mlp_tape.system import tensorflow_setup
from mlp_tape.system import exit
exit.use_temporary_directory(Path(sys.argv[2]))
with tensorflow_setup.without_garbage_collection():
    from mlp_tape.mlflow_backend import server
server.main()
"""
GRACE = 1.0  # seconds for an answer that is late


class MlflowProcess:
    """The other process, and who waits for which of its answers."""

    def __init__(self) -> None:
        self.when_told: dict[str, dict[str, Callable[[Any], None]]] = {}  # by directory and what is told
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers, self._writing = itertools.count(), threading.Lock()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, for as long as the process lives
        self._program = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                PROGRAM,
                str(ROOT),
                str(exit.own_temporary_directory() or "/nowhere"),
            ],
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
        """Lets the process go, which has nothing left to do; ends it where it does not go, as a hung one."""
        assert self._program.stdin
        try:
            with contextlib.suppress(OSError):
                self._program.stdin.close()
            self._program.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._program.kill()

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


_running: dict[
    Path, MlflowProcess
] = {}  # by the directory that it was started in, where MLflow puts artifacts
_starting = threading.Lock()


def running() -> MlflowProcess:
    """The other process; started where there is none."""
    here = Path.cwd()
    with _starting:
        if here not in _running or not _running[here].is_there:
            _running[here] = MlflowProcess()
        return _running[here]


def stop_all() -> None:
    """Ends the other process, if there is one, so that it outlives this one not even for a moment."""
    for keeper in _running.values():
        keeper.end()
