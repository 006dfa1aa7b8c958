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


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """Raises Stopped on the first SIGINT or SIGTERM; on a second one, the signal's default applies."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    global _received
    _received = signal.Signals(number)
    signal.signal(number, signal.SIG_DFL)
    raise Stopped(_received)


def asked() -> signal.Signals | None:
    """The signal that came, if one did; its exception may be lost in a library, or turned into another."""
    return _received


def raise_if_asked() -> None:
    """Raises Stopped if a signal came."""
    if _received:
        raise Stopped(_received)
