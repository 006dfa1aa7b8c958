"""The interface between a run and the place where it is recorded; metrics take the way of the journal."""

from collections.abc import Callable
from typing import Protocol

from mlp_tape.tracking.ui import Link

Say = Callable[[str], None]
Show = Callable[[int], None]


class Tracker(Protocol):
    """The place where a run is recorded."""

    def link(self) -> Link | None:
        """Returns a link to the run, which should have been closed; None if there is none."""

    def open(self, say: Say, warn: Say) -> None:
        """Begins to record what is in the directory of the run; waits until it exists in the store.

        A job of a sweep does not wait.

        Args:
            say: called with a line about each run that was left by another process.
            warn: called, at any time, with a warning of what MLflow refuses.

        Raises:
            TrackingError: the store cannot be opened, or does not have a resumed run any more.
        """

    def model_ready(self) -> None:
        """Begins to record the model, whose files are complete."""

    def close(self, patience: float, at_most: float, show: Show) -> str:
        """Waits until everything in the directory is recorded, including how the run ended.

        Args:
            patience: seconds without progress after which to give up.
            at_most: seconds after which to give up in any case.
            show: called at an interval with the number of rows that are left.

        Returns:
            The reason why something is left; empty if nothing is.
        """


class Untracked:
    """The tracker for `tracking.enabled=false`, which does nothing."""

    def link(self) -> Link | None:
        """Does nothing."""
        return None

    def open(self, say: Say, warn: Say) -> None:
        """Does nothing."""

    def model_ready(self) -> None:
        """Does nothing."""

    def close(self, patience: float, at_most: float, show: Show) -> str:
        """Does nothing."""
        return ""
