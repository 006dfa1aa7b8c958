"""The first weights of a layer, each a pure function of its shape and two numbers."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

Seed = Sequence[int]  # two of them: the run's and the layer's
Initializer = Callable[[Sequence[int], Seed, float], tf.Tensor]

CUT = 0.87962566103423978  # the standard deviation of a standard normal that is cut off at two of its own


def truncated_normal(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws from a normal distribution that is cut off at two standard deviations, as the seed program does.

    Args:
        shape: [d_in, d_out].
        seed: two whole numbers.
        stddev: of the distribution before it is cut off, above 0.

    Returns:
        float32 [d_in, d_out], from -2 * stddev to 2 * stddev. The bits are the same on every machine (Philox,
        Salmon et al. 2011, a generator that only counts).
    """
    return tf.random.stateless_truncated_normal(shape, seed, stddev=stddev, alg="philox")


def he(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws with the variance 2 / d_in, which relu keeps alive through the layers (He et al. 2015).

    The arguments are those of `truncated_normal`; `stddev` has no effect.
    """
    return truncated_normal(shape, seed, math.sqrt(2 / shape[0]) / CUT)


def lecun(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Likewise with the variance 1 / d_in (LeCun et al. 1998, "Efficient BackProp")."""
    return truncated_normal(shape, seed, math.sqrt(1 / shape[0]) / CUT)


def glorot(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws evenly from -a to a, a = sqrt(6 / (d_in + d_out)): variance 2 / (d_in + d_out) (Glorot 2010)."""
    limit = math.sqrt(6 / sum(shape))
    return tf.random.stateless_uniform(shape, seed, -limit, limit, alg="philox")


def orthogonal(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws a matrix whose rows, or columns if they are fewer, are orthonormal (Saxe et al. 2014).

    It is the Q of a matrix of normal numbers; with the signs of R's diagonal, every such Q is as likely as
    any other (Mezzadri 2007).
    """
    d_in, d_out = shape
    normal = tf.random.stateless_normal([max(shape), min(shape)], seed, alg="philox")
    q, r = tf.linalg.qr(normal)  # [max,min], [min,min]
    q *= tf.sign(tf.linalg.diag_part(r))  # [max,min] * [min]
    return q if d_in >= d_out else tf.transpose(q)


INITIALIZERS: dict[str, Initializer] = {
    each.__name__: each for each in (truncated_normal, he, glorot, lecun, orthogonal)
}
