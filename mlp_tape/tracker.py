"""What a run asks of the place where it is recorded."""

from collections.abc import Callable
from typing import Protocol

from mlp_tape.record import Record

Show = Callable[[int], None]


class Tracker(Protocol):
    """Where a run is recorded; its metrics come by way of the journal.

    Attributes:
        link: opens the charts of the run in a browser, or nothing.
        overview: likewise what is said of it.
    """

    link: str
    overview: str

    def begin(self, record: Record) -> None:
        """Records what is known before the first step, and starts to deliver the journal.

        Args:
            record: with its params, of which those that are there already stay as they are, and with the
                files in its directory.

        Raises:
            TrackingError: they are not taken.
        """

    def close(self, record: Record, patience: float, at_most: float, show: Show) -> str:
        """Delivers what the run's directory holds, and how the run ended.

        Args:
            record: with the directory and the status.
            patience: seconds without an answer after which it is given up.
            at_most: seconds after which it is given up even so.
            show: is told now and then how many rows are left.

        Returns:
            What stood in the way, or nothing.
        """


class Untracked:
    """The tracker of `tracking.enabled=false`: the run's own directory has to do."""

    link = overview = ""

    def begin(self, record: Record) -> None:
        """Does nothing."""

    def close(self, record: Record, patience: float, at_most: float, show: Show) -> str:
        """Does nothing."""
        return ""
