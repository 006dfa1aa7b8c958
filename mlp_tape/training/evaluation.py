"""Evaluation on a split: loss, accuracy, logits, and the fraction of dead units."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.tensors import optimizers
from mlp_tape.tensors.losses import targets
from mlp_tape.tensors.network import Params, forward, to_float
from mlp_tape.tensors.optimizers import Optimizer
from mlp_tape.training.classification import ByClass, by_class
from mlp_tape.training.train_step import StepConfig

ROWS = 5_000  # rows per call, which limits the size of the float copy of the images


@dataclass(frozen=True)
class Evaluation:
    """Results of the network on a split.

    Attributes:
        loss: mean loss over all rows.
        accuracy: fraction of rows predicted correctly, 0 to 1.
        scores: logits, float32 [n, classes].
        labels: true classes, int32 [n].
        dead: fraction of the units of each hidden layer that are 0 for every row, 0 to 1; keyed h1, h2, ...
    """

    loss: float
    accuracy: float
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    dead: dict[str, float]

    @property
    def predictions(self) -> NDArray[np.int64]:
        """The class with the highest score for each row, int64 [n]."""
        predictions: NDArray[np.int64] = self.scores.argmax(axis=1)
        return predictions

    def value(self, name: str) -> float:
        """Returns `loss`, `accuracy`, or a metric of `ByClass` such as `macro_f1`."""
        return float(getattr(self if name in ("loss", "accuracy") else self.by_class, name))

    @functools.cached_property
    def by_class(self) -> ByClass:
        """Precision, recall and F1 of each class."""
        return by_class(self.labels, self.predictions, self.scores.shape[1])


Scored = tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]


def score(params: Params, x: tf.Tensor, y: tf.Tensor, config: StepConfig) -> Scored:
    """Computes the loss, the logits, and which hidden units are active.

    The computation is in float32, without dropout, augmentation, label smoothing or L2 penalty.

    Args:
        params: parameters as returned by `init_params`.
        x: images, uint8 or float32 [b, ...].
        y: labels, int32 [b].
        config: config of the training step.

    Returns:
        The loss, float32 []; the logits, float32 [b, classes]; and for each hidden layer h1, h2, ... whether
        each unit is nonzero for at least one row, bool [d].
    """
    x = to_float(x, config.scale)  # [b,28,28] -> [b,784]
    trace: dict[str, tf.Tensor] = {}
    logits = forward(params, x, config.activation, trace=trace)  # [b,784] -> [b,10]
    hidden = {name: h for name, h in trace.items() if name[0] == "h"}
    alive = {name: tf.reduce_any(h != 0, axis=0) for name, h in hidden.items()}  # [b,d] -> [d]
    loss = config.loss(targets(y, logits), logits)  # [b], [b,10] -> []
    return loss, logits, alive


@functools.cache
def compiled_score(config: StepConfig) -> Callable[..., Scored]:
    """Returns `score` as one XLA call, compiled once for all runs with the same shapes and config.

    Of the config, `score` only uses what `_without_training` leaves.
    """
    return tf.function(  # type: ignore[no-any-return]
        functools.partial(score, config=config), jit_compile=True, autograph=False
    )


def _without_training(config: StepConfig) -> StepConfig:
    return StepConfig(config.activation, config.loss, Optimizer(optimizers.sgd), config.scale)


def evaluate(
    params: Params, x: NDArray[Any], y: NDArray[Any], config: StepConfig, engine: str = "compiled"
) -> Evaluation:
    """Evaluates the network on a split.

    Args:
        params: parameters as returned by `init_params`.
        x: images, uint8 or float32 [n, ...], at least one.
        y: labels, int32 [n].
        config: config of the training step.
        engine: `compiled` or `eager`.
    """
    config = _without_training(config)
    run = compiled_score(config) if engine == "compiled" else functools.partial(score, config=config)
    losses, scores = [], []
    alive: dict[str, NDArray[np.bool_]] = {}
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        loss, logits, reached = run(params, tf.constant(x[rows]), tf.constant(y[rows]))
        losses.append(float(loss) * len(x[rows]))
        scores.append(logits.numpy())
        alive = {name: units.numpy() | alive.get(name, False) for name, units in reached.items()}
    logits = np.concatenate(scores)
    accuracy = float(np.mean(logits.argmax(axis=1) == y))
    dead = {name: float(1 - units.mean()) for name, units in alive.items()}
    return Evaluation(sum(losses) / len(x), accuracy, logits, y, dead)
