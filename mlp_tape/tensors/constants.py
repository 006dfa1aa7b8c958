"""Constants of a training step: numbers, or inputs of a compiled function that stand for them."""

from typing import TypeAlias

import tensorflow as tf

# Either a Python float or a float64 tensor []. What is computed from it is cast where it meets other tensors,
# so that both give the same bits.
Constant: TypeAlias = float | tf.Tensor


def is_used(constant: Constant | None) -> bool:
    """Returns whether a constant has an effect: whether it is neither None nor 0. A tensor never is 0."""
    return tf.is_tensor(constant) or bool(constant)
