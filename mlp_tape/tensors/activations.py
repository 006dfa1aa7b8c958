"""What stands between the layers: the activations, each element by element, and dropout."""

import math
from collections.abc import Callable

import tensorflow as tf

from mlp_tape.tensors.random_numbers import Stream, uniform

Activation = Callable[[tf.Tensor], tf.Tensor]


def relu(z: tf.Tensor) -> tf.Tensor:
    """max(z, 0), whose gradient at 0 is 0 (Nair and Hinton 2010)."""
    return tf.nn.relu(z)


def leaky_relu(z: tf.Tensor) -> tf.Tensor:
    """Keeps a fifth below 0: z where z > 0, else 0.2 * z (Maas et al. 2013, with TensorFlow's slope)."""
    return tf.where(z > 0, z, 0.2 * z)


def gelu(z: tf.Tensor) -> tf.Tensor:
    """Weighs z by the normal distribution function: z * (1 + erf(z / sqrt(2))) / 2 (Hendrycks 2016)."""
    return 0.5 * z * (1 + tf.math.erf(z / math.sqrt(2)))


def sigmoid(z: tf.Tensor) -> tf.Tensor:
    """1 / (1 + exp(-z)), below 0 as exp(z) / (1 + exp(z)): neither overflows."""
    below, above = tf.exp(tf.minimum(z, 0)), tf.exp(-tf.maximum(z, 0))
    return tf.where(z < 0, below / (1 + below), 1 / (1 + above))


def silu(z: tf.Tensor) -> tf.Tensor:
    """Weighs z by its sigmoid: z * sigmoid(z), also called swish (Elfwing et al. 2017)."""
    return z * sigmoid(z)


def tanh(z: tf.Tensor) -> tf.Tensor:
    """(exp(z) - exp(-z)) / (exp(z) + exp(-z))."""
    return tf.tanh(z)


def dropout(h: tf.Tensor, rate: float, stream: Stream) -> tf.Tensor:
    """Sets a share of the values to 0 and divides the others by what is kept (Srivastava et al. 2014).

    Args:
        h: of any float dtype and shape.
        rate: the share, from 0 to below 1.
        stream: decides which; see `draws.uniform`.
    """
    return tf.where(uniform(h.shape, stream) >= rate, h / (1 - rate), tf.zeros_like(h))


ACTIVATIONS: dict[str, Activation] = {
    each.__name__: each for each in (relu, leaky_relu, gelu, silu, tanh, sigmoid)
}
