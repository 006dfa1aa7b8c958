"""Process exit without the interpreter's shutdown.

The interpreter's shutdown runs the destructors of C++ libraries while their threads are still running. With
TensorFlow loaded, one process in twelve ended with SIGSEGV or SIGABRT on a busy machine. `leave` skips the
shutdown, and removes the temporary files that libraries would have removed.
"""

import atexit
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

_temporary: Path | None = None
_failed = _installed = False


def on_early_signals() -> None:
    """Ends the process with exit code 128 + signal number on SIGINT and SIGTERM, while nothing is open.

    For the beginning and the end of the program; `signals.on_signals` takes over in between.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_on_signal)


def _leave_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    leave(128 + number)


def own_temporary_directory() -> Path | None:
    """Returns the directory for this process's temporary files, which `leave` removes.

    Creates it on the first call and makes it Python's default temporary directory. Libraries create
    temporary files and remove them in exit handlers that `leave` does not run, for example the sources that
    TensorFlow's AutoGraph generates for a SavedModel.

    Returns:
        The directory; None if it cannot be created.
    """
    global _temporary
    if _temporary is None:
        with contextlib.suppress(OSError):
            _temporary = Path(tempfile.mkdtemp(prefix="mlp_tape-"))
            tempfile.tempdir = str(_temporary)
    return _temporary


def temporary_directory() -> Path | None:
    """Returns the directory of `own_temporary_directory`; None if it was not called."""
    return _temporary


def use_temporary_directory(path: Path) -> None:
    """Shares the temporary directory of another process; each process that leaves tries to remove it."""
    global _temporary
    if path.is_dir():
        _temporary = path
        tempfile.tempdir = str(path)


def leave(code: int) -> NoReturn:
    """Ends the process immediately, after flushing standard streams and removing temporary files.

    Args:
        code: exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, a broken pipe, or interrupted in a write
            stream.flush()
    if _temporary is not None:
        for _ in range(3):  # a thread may still be writing there
            shutil.rmtree(_temporary, ignore_errors=True)
            if not _temporary.exists():
                break
    os._exit(code)


def leave_after_handlers(code: int) -> NoReturn:
    """Runs the registered exit handlers first, for packages such as Ray that must end their processes."""
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    leave(code)


def leave_at_interpreter_exit() -> None:
    """Makes `leave` the exit of a process whose main program is another package's, such as a worker.

    The exit code is unchanged: 1 after an uncaught exception, else 0. Exit handlers registered before this
    call do not run. Has no effect under Ray, which needs its own handlers and ends its workers without
    running destructors.
    """
    global _installed
    if _installed or "ray" in sys.modules:
        return
    _installed, show = True, sys.excepthook

    def record_failure(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        global _failed
        _failed = True
        show(kind, error, trace)

    sys.excepthook = record_failure
    atexit.register(lambda: leave(int(_failed)))
