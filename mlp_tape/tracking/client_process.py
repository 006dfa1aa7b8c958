"""The process that delivers runs to MLflow, as seen from the one that trains.

One process serves all runs of this one, and ends with it. Messages and notifications are lines of JSON.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlp_tape.system import exit, program

PROGRAM = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # they are for the process that trains, which decides what to do
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from pathlib import Path
from mlp_tape.mlflow_backend import notifications
from mlp_tape.system import tensorflow_setup
from mlp_tape.system import exit, timeline
timeline.join(timeline.MLFLOW)
notifications.start()
exit.use_temporary_directory(Path(sys.argv[2]))
with tensorflow_setup.without_garbage_collection(), timeline.phase("import of MLflow"):
    from mlp_tape.mlflow_backend import server
server.main()
"""
IDLE = 30.0  # seconds for which the process, which takes seconds to start, waits for another run
GRACE = 1.0  # seconds in which the process may end by itself
LAST = 4096  # bytes of what it printed that may be shown

Listener = Callable[[dict[str, Any]], None]


class MlflowProcess:
    """The process, and the listeners to its notifications."""

    def __init__(self) -> None:
        self.last_sign = time.monotonic()  # when it last sent anything
        self.is_ready = False  # whether it has imported MLflow
        self._listeners: dict[str, Listener] = {}  # by directory
        self._writing = threading.Lock()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, for as long as the process exists
        # Another program that uses this package has a temporary directory of its own.
        self._temporary = tempfile.TemporaryDirectory(prefix="mlp_tape-", ignore_cleanup_errors=True)
        shared = str(exit.temporary_directory() or self._temporary.name)
        self._program = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(program.ROOT), shared],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # warnings of MLflow's dependencies are not to become errors
            env={key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"},
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, name="notifications", daemon=True)
        self._reader.start()

    @property
    def exists(self) -> bool:
        """Whether the process exists."""
        return self._program.poll() is None

    @property
    def last_line(self) -> str:
        """The last line that the process printed, after a colon; empty if it printed nothing."""
        if self._errors.closed:
            return ""
        file = self._errors.fileno()  # the process shares its offset, and writes
        printed = os.pread(file, LAST, max(0, os.fstat(file).st_size - LAST))
        last = printed.decode(errors="replace").strip().rpartition("\n")[2]
        return f": {last}" if last else ""

    @property
    def epitaph(self) -> str:
        """Says that the process has ended, with the last line that it printed."""
        return f"the process that talks to MLflow is gone{self.last_line}"

    def listen(self, directory: Path, listener: Listener) -> None:
        """Registers the listener to notifications about a directory; the last one is `gone`."""
        self._listeners[str(directory)] = listener

    def forget(self, directory: Path) -> None:
        """Drops the listener to notifications about a directory, and the run that it belongs to."""
        self._listeners.pop(str(directory), None)

    def send(self, do: str, directory: Path, **details: Any) -> None:
        """Sends a message; has no effect if the process is gone."""
        with self._writing, contextlib.suppress(OSError):
            message = json.dumps({"do": do, "directory": str(directory)} | details)
            print(message, file=self._program.stdin, flush=True)

    def end(self) -> None:
        """Lets the process end, and kills it if it does not, or has not begun to deliver."""
        assert self._program.stdin
        self._listeners.clear()
        if not self.is_ready:
            self._program.kill()
        try:
            with contextlib.suppress(OSError):
                self._program.stdin.close()
            self._program.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        self._reader.join(GRACE)
        self._errors.close()
        self._temporary.cleanup()

    def _read(self) -> None:
        assert self._program.stdout
        with self._program.stdout as lines:
            for line in lines:
                self.last_sign = time.monotonic()
                notification = json.loads(line)
                self.is_ready = self.is_ready or notification["event"] == "ready"
                listener = self._listeners.get(notification["directory"])
                if listener:
                    try:
                        listener(notification)
                    except Exception:  # a fault in one run; the other runs wait for their notifications
                        traceback.print_exc()
        for listener in list(self._listeners.values()):
            listener({"event": "gone"})


# By the directory in which it was started, where MLflow creates the artifacts of a database.
_running: dict[Path, MlflowProcess] = {}
_starting = threading.Lock()


def running() -> MlflowProcess:
    """Returns the process; starts it if there is none."""
    here = Path.cwd()
    with _starting:
        if here not in _running or not _running[here].exists:
            _running[here] = MlflowProcess()
        return _running[here]


_users = 0  # runs in progress, in all threads
_counting = threading.Lock()
_end_of_idling: threading.Timer | None = None


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """Keeps the process during the block, which is a run, from being ended because there is none."""
    global _users
    with _counting:
        _users += 1
    try:
        yield
    finally:
        with _counting:
            _users -= 1


@contextlib.contextmanager
def ended_when_idle() -> Iterator[None]:
    """Ends the process when there has been no run for a while after the block."""
    global _end_of_idling
    try:
        yield
    finally:
        with _counting:
            if _end_of_idling:
                _end_of_idling.cancel()
            _end_of_idling = threading.Timer(IDLE, _stop_if_idle)
            _end_of_idling.daemon = True
            _end_of_idling.start()


def _stop_if_idle() -> None:
    with _counting:
        if not _users:
            stop_all()


def stop_all() -> None:
    """Ends the process, if there is one, so that it does not outlive this one."""
    with _starting:
        while _running:
            _running.popitem()[1].end()
