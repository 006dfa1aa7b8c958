"""What a run asks of the place where it is recorded."""

from collections.abc import Callable
from typing import Protocol

Say = Callable[[str], None]
Show = Callable[[int], None]


class Tracker(Protocol):
    """Where a run is recorded; its metrics come by way of the journal."""

    @property
    def link(self) -> str:
        """Opens the charts of the run in a browser, or nothing."""

    @property
    def overview(self) -> str:
        """Likewise what is said of the run."""

    def open(self, say: Say) -> None:
        """Waits until the run is there, or is there again.

        Args:
            say: is told what became of other runs.

        Raises:
            TrackingError: the store cannot be opened, or does not have the run any more.
        """

    def begin(self) -> None:
        """Records what is known before the first step, and starts to deliver the journal.

        That is the record's params, of which those that are there already stay as they are, and the files
        in its directory.

        Raises:
            TrackingError: they are not taken.
        """

    def give_model(self) -> None:
        """Records the model that the run's directory holds, without waiting for it."""

    def close(self, patience: float, at_most: float, show: Show) -> str:
        """Delivers what the run's directory holds, and how the run ended.

        Args:
            patience: seconds without an answer after which it is given up.
            at_most: seconds after which it is given up even so.
            show: is told now and then how many rows are left.

        Returns:
            What stood in the way, or nothing.
        """


class Untracked:
    """The tracker of `tracking.enabled=false`: the run's own directory has to do."""

    link = overview = ""

    def open(self, say: Say) -> None:
        """Does nothing."""

    def begin(self) -> None:
        """Does nothing."""

    def give_model(self) -> None:
        """Does nothing."""

    def close(self, patience: float, at_most: float, show: Show) -> str:
        """Does nothing."""
        return ""
