"""Which weights a run is to end with, and when it has seen enough: by images that it is not trained on."""

from dataclasses import dataclass, field
from typing import Any

from mlp_tape.data.sources import Array
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.training.evaluation import Evaluation

PREFIX = "best/"  # of the arrays in a checkpoint


@dataclass
class EarlyStopping:
    """The best weights so far.

    Attributes:
        monitor: `loss` or `accuracy` of the validation images: what they are the best by.
        patience: after how many epochs without better ones training ends (Prechelt 1998, "Early stopping -
            but when?"); None for never.
        arrays: the weights, w1, b1, ...; empty before the first epoch's end.
        loss: that of theirs.
        accuracy: likewise.
        steps: how many steps they were trained for.
        waited: how many epochs have passed since.
    """

    monitor: str
    patience: int | None
    arrays: dict[str, Array] = field(default_factory=dict)
    loss: float = 0.0
    accuracy: float = 0.0
    steps: int = 0
    waited: int = 0

    @property
    def is_over(self) -> bool:
        """Whether no better ones are waited for."""
        return self.patience is not None and self.waited >= self.patience

    def consider(self, found: Evaluation, steps: int, arrays: dict[str, Array]) -> None:
        """Takes these weights if they are better.

        Args:
            found: on the validation images.
            steps: that were trained.
            arrays: the weights.
        """
        by_loss = self.monitor == "loss"
        better = found.loss < self.loss if by_loss else found.accuracy > self.accuracy
        if better or not self.arrays:
            self.arrays, self.steps, self.waited = arrays, steps, 0
            self.loss, self.accuracy = found.loss, found.accuracy
        else:
            self.waited += 1

    def kept(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """What a checkpoint holds of it: arrays, and the rest."""
        about = {name: getattr(self, name) for name in ("loss", "accuracy", "steps", "waited")}
        return {f"{PREFIX}{name}": array for name, array in self.arrays.items()}, about

    def go_on(self, start: Checkpoint | None) -> None:
        """Takes over what a checkpoint holds."""
        for name, value in (start.about.get("selection", {}) if start else {}).items():
            setattr(self, name, value)
        for name, array in (start.arrays if start else {}).items():
            if name.startswith(PREFIX):
                self.arrays[name.removeprefix(PREFIX)] = array
