"""Orderly stop of a run on SIGINT, SIGTERM or a stop file, even if a library swallows the exception."""

import contextlib
import faulthandler
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal or a stop file has requested the run to stop.

    Args:
        reason: name of the signal, or content of the stop file.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


_received: signal.Signals | None = None
_deferred = 0
_forwarded = False
_file: Path | None = None


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Raises Stopped on the first SIGINT or SIGTERM; a second one ends the process immediately."""
    _use_alternate_stack()
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def on_interrupt() -> Iterator[None]:
    """Raises Stopped on the first Ctrl-C within a call by another program, whose signals are its own.

    A second Ctrl-C raises KeyboardInterrupt at once, even if the first one is deferred. At the end, the
    program handles Ctrl-C as before, and the signal is forgotten. Has no effect outside the main thread, or
    if the program has a handler of its own.
    """
    global _received
    handler = signal.default_int_handler
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or signal.getsignal(signal.SIGINT) is not handler:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        global _received
        signal.signal(signal.SIGINT, handler)
        _received = signal.SIGINT
        if not _deferred:
            raise Stopped(_received.name)

    _use_alternate_stack()
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        _received = None


def _use_alternate_stack() -> None:
    """Makes signal handlers run on an alternate stack, which faulthandler installs for the main thread.

    Code that XLA compiles for the CPU stores values below the stack pointer, beyond the red zone that signal
    delivery preserves. A handler on the same stack overwrites them, which corrupts the heap.
    """
    if not faulthandler.is_enabled():
        with contextlib.suppress(OSError, ValueError):  # standard error is closed
            faulthandler.enable(2)


@contextlib.contextmanager
def on_file(path: Path) -> Iterator[None]:
    """Makes `raise_if_stopped` raise once a file exists, by which a sweep stops jobs in other processes."""
    global _file
    before, _file = _file, path
    try:
        yield
    finally:
        _file = before


def _stop(number: int, frame: FrameType | None) -> None:
    global _received
    first, _received = _received is None, signal.Signals(number)
    if _forwarded and first:
        return
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    if not _deferred:
        raise Stopped(_received.name)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Defers signals until `raise_if_stopped` is called, so that the block is not interrupted elsewhere."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1


@contextlib.contextmanager
def forwarded() -> Iterator[None]:
    """Only records the first signal, to stop jobs in other processes; the second one raises Stopped."""
    global _forwarded
    _forwarded = True
    try:
        yield
    finally:
        _forwarded = False


def received() -> signal.Signals | None:
    """Returns the last signal received, or None; a library may have swallowed or replaced its exception."""
    return _received


def stop_reason() -> str:
    """Returns why the run has to stop; empty if it does not."""
    if _received:
        return _received.name
    if _file and _file.exists():
        return _file.read_text().strip() or f"{_file.name} was created"
    return ""


def raise_if_stopped() -> None:
    """Raises Stopped if the run has to stop."""
    why = stop_reason()
    if why:
        raise Stopped(why)
