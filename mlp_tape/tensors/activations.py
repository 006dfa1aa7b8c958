"""Elementwise activation functions, and dropout."""

import math
from collections.abc import Callable

import tensorflow as tf

from mlp_tape.tensors.constants import Constant
from mlp_tape.tensors.random_numbers import Stream, uniform

Activation = Callable[[tf.Tensor], tf.Tensor]


def relu(z: tf.Tensor) -> tf.Tensor:
    """Rectified linear unit: max(z, 0), with gradient 0 at 0 (Nair and Hinton 2010)."""
    return tf.nn.relu(z)


def leaky_relu(z: tf.Tensor) -> tf.Tensor:
    """Leaky ReLU: z where z > 0, else 0.2 * z (Maas et al. 2013, with TensorFlow's default slope)."""
    return tf.where(z > 0, z, 0.2 * z)


def gelu(z: tf.Tensor) -> tf.Tensor:
    """Gaussian error linear unit: z * (1 + erf(z / sqrt(2))) / 2 (Hendrycks and Gimpel 2016)."""
    return 0.5 * z * (1 + tf.math.erf(z / math.sqrt(2)))


def sigmoid(z: tf.Tensor) -> tf.Tensor:
    """Logistic function: 1 / (1 + exp(-z)); for z < 0, exp(z) / (1 + exp(z)), to avoid overflow."""
    below, above = tf.exp(tf.minimum(z, 0)), tf.exp(-tf.maximum(z, 0))
    return tf.where(z < 0, below / (1 + below), 1 / (1 + above))


def silu(z: tf.Tensor) -> tf.Tensor:
    """Sigmoid linear unit, also called swish: z * sigmoid(z) (Elfwing et al. 2017)."""
    return z * sigmoid(z)


def tanh(z: tf.Tensor) -> tf.Tensor:
    """Hyperbolic tangent: (exp(z) - exp(-z)) / (exp(z) + exp(-z))."""
    return tf.tanh(z)


def dropout(h: tf.Tensor, rate: Constant, stream: Stream) -> tf.Tensor:
    """Sets a random fraction of the values to 0 and scales up the others (Srivastava et al. 2014).

    Args:
        h: activations, of any float dtype and shape.
        rate: probability with which a value is dropped, in [0, 1); the others are divided by 1 - rate.
        stream: random number stream; see `random_numbers.uniform`.

    Returns:
        A tensor of the dtype and shape of h.
    """
    kept = uniform(h.shape, stream) >= tf.cast(rate, tf.float32)
    return tf.where(kept, h / tf.cast(1 - rate, h.dtype), tf.zeros_like(h))


ACTIVATIONS: dict[str, Activation] = {
    each.__name__: each for each in (relu, leaky_relu, gelu, silu, tanh, sigmoid)
}
