"""What training leaves in memory, for the report."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Result:
    """A trained network.

    Attributes:
        steps: how many were trained.
        weights: w1, b1, w2, b2, ..., float32.
        loss: on the test images, mean over all.
        accuracy: on the test images, 0 to 1.
        scores: of the test images, float32 [n, classes].
        first_weights: w1 before the first step.
        chosen_by: the accuracy by which one run is to be preferred to others, 0 to 1: of the validation
            images where there are some, else of the test images.
    """

    steps: int
    weights: dict[str, NDArray[np.float32]]
    loss: float
    accuracy: float
    scores: NDArray[np.float32]
    first_weights: NDArray[np.float32]
    chosen_by: float
