"""SIGINT and SIGTERM: either one ends the run in order, even where its exception was swallowed."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stopped(KeyboardInterrupt):
    """The program was asked to stop.

    Args:
        number: by which signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


_received: signal.Signals | None = None
_held = False


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Raises Stopped on the first SIGINT or SIGTERM; a second one ends the process at once."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    global _received
    _received = signal.Signals(number)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    if not _held:
        raise Stopped(_received)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Lets a signal wait for `raise_if_asked`, so that it does not tear what has to stay together."""
    global _held
    _held = True
    try:
        yield
    finally:
        _held = False


def asked() -> signal.Signals | None:
    """The signal that came, if one did; its exception may be lost in a library, or turned into another."""
    return _received


def raise_if_asked() -> None:
    """Raises Stopped if a signal came."""
    if _received:
        raise Stopped(_received)
