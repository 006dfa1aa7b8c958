"""Loss, accuracy and predictions on images that were not trained on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.model import Params, forward, to_float
from mlp_tape.step import Recipe

ROWS = 2_000  # in one go, so that the float copy of the images stays small


@dataclass(frozen=True)
class Evaluation:
    """How the network does on a split.

    Attributes:
        loss: mean over all rows.
        accuracy: the fraction of rows predicted right, 0 to 1.
        predictions: int64 [n], the class of the highest score.
    """

    loss: float
    accuracy: float
    predictions: NDArray[np.int64]


def evaluate(params: Params, x: NDArray[Any], y: NDArray[Any], recipe: Recipe) -> Evaluation:
    """Evaluates the network.

    Args:
        params: as from `init_params`.
        x: uint8 or float32 [n, ...].
        y: int32 [n].
        recipe: as in training.
    """
    losses, predictions = [], []
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        logits = forward(params, to_float(tf.constant(x[rows]), recipe.scale), recipe.activation)  # [b,10]
        losses.append(float(recipe.loss(tf.constant(y[rows]), logits)) * len(x[rows]))
        predictions.append(tf.argmax(logits, axis=1).numpy())  # [b,10] -> [b]
    predicted = np.concatenate(predictions)
    return Evaluation(sum(losses) / len(x), float(np.mean(predicted == y)), predicted)
