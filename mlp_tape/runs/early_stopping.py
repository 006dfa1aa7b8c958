"""Early stopping and the selection of the best weights, by the validation images."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlp_tape.config.metrics import OF_SPLIT
from mlp_tape.data.contents import Array
from mlp_tape.storage.checkpoint import BEST, Checkpoint
from mlp_tape.training.evaluation import Evaluation

RESULTS = tuple(OF_SPLIT)  # loss, accuracy, ...


@dataclass
class EarlyStopping:
    """The best weights so far.

    Attributes:
        monitor: criterion on the validation images, a key of `OF_SPLIT`; of equal weights, those with the
            lower loss are better.
        patience: number of epochs without improvement after which training ends (Prechelt 1998, "Early
            stopping - but when?"); None to train all epochs.
        arrays: best parameters, w1, b1, ...; empty before the end of the first epoch.
        loss: validation loss of the best parameters.
        accuracy: validation accuracy of the best parameters, 0 to 1.
        balanced_accuracy: mean recall of the classes with the best parameters, 0 to 1.
        macro_f1: mean F1 of the classes with the best parameters, 0 to 1.
        steps: number of steps for which they were trained.
        waited: number of epochs since.
    """

    monitor: str
    patience: int | None
    arrays: dict[str, Array] = field(default_factory=dict)
    loss: float = 0.0
    accuracy: float = 0.0
    balanced_accuracy: float = 0.0
    macro_f1: float = 0.0
    steps: int = 0
    waited: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the patience is exhausted, so that training should end."""
        return self.patience is not None and self.waited >= self.patience

    def update(self, found: Evaluation, steps: int, arrays: dict[str, Array]) -> None:
        """Updates the best weights if these are better, else counts an epoch without improvement.

        Args:
            found: evaluation on the validation images.
            steps: number of steps trained.
            arrays: parameters, w1, b1, ...
        """
        if not self.arrays or self._cost(found.value) < self._cost(functools.partial(getattr, self)):
            self.arrays, self.steps, self.waited = arrays, steps, 0
            for name in RESULTS:
                setattr(self, name, found.value(name))
        else:
            self.waited += 1

    def _cost(self, value: Callable[[str], float]) -> list[float]:
        """Returns what is lower, in lexicographic order, for better weights."""
        sign = -1 if OF_SPLIT[self.monitor] == "maximize" else 1
        costs = [sign * value(self.monitor), value("loss")]
        return [math.inf if math.isnan(cost) else cost for cost in costs]

    @property
    def results(self) -> dict[str, float]:
        """The metrics of the best parameters on the validation images, by key; empty if there are none."""
        return {f"validation/{name}": getattr(self, name) for name in RESULTS} if self.arrays else {}

    def to_checkpoint(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Returns the arrays and the other values to save in a checkpoint."""
        about = {name: getattr(self, name) for name in (*RESULTS, "steps", "waited")}
        return {f"{BEST}{name}": array for name, array in self.arrays.items()}, about

    def restore(self, start: Checkpoint | None) -> None:
        """Restores the values saved in a checkpoint; has no effect if `start` is None."""
        for name, value in (start.about.get("selection", {}) if start else {}).items():
            setattr(self, name, value)
        for name, array in (start.arrays if start else {}).items():
            if name.startswith(BEST):
                self.arrays[name.removeprefix(BEST)] = array
