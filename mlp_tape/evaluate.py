"""Loss, accuracy and predictions on images that were not trained on."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.model import Params, forward, to_float
from mlp_tape.step import Recipe

ROWS = 5_000  # in one go, so that the float copy of the images stays small


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


def score(params: Params, x: tf.Tensor, y: tf.Tensor, recipe: Recipe) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes loss and predictions for some rows.

    Args:
        params: as from `init_params`.
        x: uint8 or float32 [b, ...].
        y: int32 [b].
        recipe: as in training.

    Returns:
        The loss, float32 [], and the class of the highest score, int64 [b].
    """
    logits = forward(params, to_float(x, recipe.scale), recipe.activation)  # [b,28,28] -> [b,784] -> [b,10]
    return recipe.loss(y, logits), tf.argmax(logits, axis=1)  # [b], [b,10] -> []; [b,10] -> [b]


@functools.cache
def compiled_score(recipe: Recipe) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """`score` as one XLA call; compiled once for all runs of the same shapes and recipe."""
    return tf.function(  # type: ignore[no-any-return]
        functools.partial(score, recipe=recipe), jit_compile=True, autograph=False
    )


def evaluate(
    params: Params, x: NDArray[Any], y: NDArray[Any], recipe: Recipe, engine: str = "compiled"
) -> Evaluation:
    """Evaluates the network.

    Args:
        params: as from `init_params`.
        x: uint8 or float32 [n, ...].
        y: int32 [n].
        recipe: as in training.
        engine: `compiled` or `eager`.
    """
    run = compiled_score(recipe) if engine == "compiled" else functools.partial(score, recipe=recipe)
    losses, predictions = [], []
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        loss, predicted = run(params, tf.constant(x[rows]), tf.constant(y[rows]))
        losses.append(float(loss) * len(x[rows]))
        predictions.append(predicted.numpy())
    all_predicted = np.concatenate(predictions)
    return Evaluation(sum(losses) / len(x), float(np.mean(all_predicted == y)), all_predicted)
