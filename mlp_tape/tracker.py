"""What a run asks of the place where it is recorded."""

from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from mlp_tape.journal import Row


class Tracker(Protocol):
    """Where a run is recorded; its metrics come by way of the journal.

    Attributes:
        link: opens the run in a browser, or nothing.
    """

    link: str

    def artifact(self, path: Path, directory: str | None = None) -> None:
        """Keeps a file."""

    def model(
        self, files: dict[str, Path], example: NDArray[Any], n_classes: int, results: list[Row]
    ) -> None:
        """Keeps the trained network in a form that can be loaded and served."""


class Untracked:
    """The tracker of `tracking.enabled=false`: the run's own directory has to do."""

    link = ""

    def artifact(self, path: Path, directory: str | None = None) -> None:
        """Does nothing."""

    def model(
        self, files: dict[str, Path], example: NDArray[Any], n_classes: int, results: list[Row]
    ) -> None:
        """Does nothing."""
