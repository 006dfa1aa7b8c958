"""The one way out of the program, whatever happened.

The interpreter's own exit runs the destructors of C++ libraries while their threads still compute. With
TensorFlow loaded, that ended one process in twelve on a busy machine with SIGSEGV or SIGABRT. `leave` skips
it, and removes what the libraries would have removed.
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

_own: Path | None = None
_failed = _at_the_end = False


def on_early_signals() -> None:
    """Ends the process with the promised exit code on SIGINT and SIGTERM, while there is nothing to close.

    For the program's first and last moments: `stop.on_signals` takes over in between.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_on_signal)


def _leave_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    leave(128 + number)


def own_temporary_directory() -> Path | None:
    """The directory for this process's temporary files, which `leave` removes; None where none can be made.

    Libraries leave files in the temporary directory and remove them in handlers that `leave` does not run;
    TensorFlow, for one, the sources that AutoGraph generates for a SavedModel.
    """
    global _own
    if _own is None:
        with contextlib.suppress(OSError):
            _own = Path(tempfile.mkdtemp(prefix="mlp_tape-"))
            tempfile.tempdir = str(_own)
    return _own


def use_temporary_directory(path: Path) -> None:
    """Uses a directory that another process made for both; whichever leaves last removes it."""
    global _own
    if path.is_dir():
        _own = path
        tempfile.tempdir = str(path)


def leave(code: int) -> NoReturn:
    """Ends the process at once, flushed and without temporary files.

    Args:
        code: the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, without a reader, or interrupted in a write
            stream.flush()
    if _own is not None:
        for _ in range(3):  # a thread may still be writing there
            shutil.rmtree(_own, ignore_errors=True)
            if not _own.exists():
                break
    os._exit(code)


def leave_after_handlers(code: int) -> NoReturn:
    """Does so after the exit handlers of other packages, which may have processes to end, as Ray has."""
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    leave(code)


def leave_at_the_interpreters_end() -> None:
    """Makes this the way out of a process whose main program is another package's, such as a worker's.

    Its exit code stays what it is: 1 after an exception that nobody caught, else 0. The handlers that were
    registered before this call are not run; Ray, which needs its own, ends its workers without destructors.
    """
    global _at_the_end
    if _at_the_end or "ray" in sys.modules:
        return
    _at_the_end, show = True, sys.excepthook

    def note(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        global _failed
        _failed = True
        show(kind, error, trace)

    sys.excepthook = note
    atexit.register(lambda: leave(int(_failed)))
