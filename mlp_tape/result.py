"""What training leaves in memory, for the report."""

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlp_tape.journal import Row


@dataclass
class Result:
    """A trained network, and how it came to be.

    Attributes:
        weights: w1, b1, w2, b2, ..., float32.
        losses: of each step.
        test_losses: one an epoch.
        test_accuracies: one an epoch, 0 to 1.
        predictions: of the test images, after the last epoch.
        rows: the last evaluation as metric rows.
    """

    weights: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    losses: "array[float]" = field(default_factory=lambda: array("f"))
    test_losses: list[float] = field(default_factory=list)
    test_accuracies: list[float] = field(default_factory=list)
    predictions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    rows: list[Row] = field(default_factory=list)
