"""What ends a run in order: SIGINT, SIGTERM or a file, also where an exception was swallowed."""

import contextlib
import faulthandler
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class Stopped(KeyboardInterrupt):
    """The run was asked to stop.

    Args:
        reason: the signal's name, or what the file says.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_received: signal.Signals | None = None
_held = 0
_patient = False
_file: Path | None = None


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Raises Stopped on the first SIGINT or SIGTERM; a second one ends the process at once."""
    _give_handlers_a_stack()
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _give_handlers_a_stack() -> None:
    """Lets signal handlers run elsewhere than on the stack of the main thread, as faulthandler's do.

    What XLA runs on the CPU keeps numbers below the stack pointer, further than a signal spares: a handler on
    the same stack writes over them, which ends the process with a damaged heap.
    """
    if not faulthandler.is_enabled():
        with contextlib.suppress(OSError, ValueError):  # there is no standard error
            faulthandler.enable(2)


@contextlib.contextmanager
def on_file(path: Path) -> Iterator[None]:
    """Lets `raise_if_asked` raise once a file is there: how a sweep ends jobs in other processes."""
    global _file
    before, _file = _file, path
    try:
        yield
    finally:
        _file = before


def _stop(number: int, frame: FrameType | None) -> None:
    global _received
    first, _received = _received is None, signal.Signals(number)
    if _patient and first:
        return
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    if not _held:
        raise Stopped(_received.name)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Lets a signal wait for `raise_if_asked`, so that it does not tear what has to stay together."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Only notes the first signal, for jobs in other processes to end by; the second one raises Stopped."""
    global _patient
    _patient = True
    try:
        yield
    finally:
        _patient = False


def asked() -> signal.Signals | None:
    """The signal that came, if one did; its exception may be lost in a library, or turned into another."""
    return _received


def reason() -> str:
    """Why the run has to stop, or nothing."""
    if _received:
        return _received.name
    if _file and _file.exists():
        return _file.read_text().strip() or f"{_file.name} was made"
    return ""


def raise_if_asked() -> None:
    """Raises Stopped if there is a reason."""
    why = reason()
    if why:
        raise Stopped(why)
