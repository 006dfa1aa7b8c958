"""Update rules: from gradients to what is subtracted from the parameters."""

from collections.abc import Callable

import tensorflow as tf

Grads = dict[str, tf.Tensor]
Updates = dict[str, tf.Tensor]
Optimizer = Callable[[Grads, tf.Tensor], Updates]


def sgd(grads: Grads, lr: tf.Tensor) -> Updates:
    """Computes the step of plain gradient descent, lr * grad.

    Args:
        grads: d loss / d param, by the parameter's name.
        lr: the learning rate, float32 [], above 0.

    Returns:
        What to subtract from each parameter, of its shape.
    """
    return {name: lr * grad for name, grad in grads.items()}


OPTIMIZERS: dict[str, Optimizer] = {"sgd": sgd}
