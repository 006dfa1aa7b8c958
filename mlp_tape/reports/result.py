"""The result of training, from which the report is written."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlp_tape.training.classification import ByClass


@dataclass(frozen=True)
class Result:
    """A trained network.

    Attributes:
        steps: number of steps trained.
        weights: parameters w1, b1, w2, b2, ..., float32.
        loss: mean loss on the test images.
        accuracy: accuracy on the test images, 0 to 1.
        scores: logits of the test images, float32 [n, classes].
        by_class: precision, recall and F1 of each class on the test images.
        first_weights: w1 before the first step, float32 [features, units].
        validation: metrics on the validation images, by key, such as `validation/accuracy`; empty if there
            are none.
        best_epochs: number of epochs after which the weights were best on the validation images; 0 if there
            are none.
    """

    steps: int
    weights: dict[str, NDArray[np.float32]]
    loss: float
    accuracy: float
    scores: NDArray[np.float32]
    by_class: ByClass
    first_weights: NDArray[np.float32]
    validation: dict[str, float]
    best_epochs: int


@dataclass(frozen=True)
class Pruned:
    """What is known of a training that a search ended early, as others did better.

    Attributes:
        epochs: number of epochs trained.
        steps: number of steps trained.
        validation: as in `Result`.
    """

    epochs: int
    steps: int
    validation: dict[str, float]
