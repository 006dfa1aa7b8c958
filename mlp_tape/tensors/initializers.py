"""Weight initializers: pure functions of a layer's shape and a seed."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

Seed = Sequence[int]  # two integers: the seed of the run and the number of the layer
Initializer = Callable[[Sequence[int], Seed, float], tf.Tensor]

CUT = 0.87962566103423978  # standard deviation of a standard normal truncated at -2 and 2


def truncated_normal(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws from a normal distribution truncated at two standard deviations, as in the original program.

    Args:
        shape: [d_in, d_out].
        seed: two integers.
        stddev: standard deviation of the distribution before truncation, above 0.

    Returns:
        float32 [d_in, d_out], from -2 * stddev to 2 * stddev. The bits are the same on every machine, since
        the generator is counter-based (Philox, Salmon et al. 2011).
    """
    return tf.random.stateless_truncated_normal(shape, seed, stddev=stddev, alg="philox")


def he(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws from a truncated normal with variance 2 / d_in, suited to relu (He et al. 2015).

    The arguments are those of `truncated_normal`; `stddev` has no effect.
    """
    return truncated_normal(shape, seed, math.sqrt(2 / shape[0]) / CUT)


def lecun(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws as `he` does, with variance 1 / d_in (LeCun et al. 1998, "Efficient BackProp")."""
    return truncated_normal(shape, seed, math.sqrt(1 / shape[0]) / CUT)


def glorot(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws uniformly from [-a, a), where a = sqrt(6 / (d_in + d_out)) (Glorot and Bengio 2010).

    The variance is 2 / (d_in + d_out). The arguments are those of `he`.
    """
    limit = math.sqrt(6 / sum(shape))
    return tf.random.stateless_uniform(shape, seed, -limit, limit, alg="philox")


def orthogonal(shape: Sequence[int], seed: Seed, stddev: float) -> tf.Tensor:
    """Draws a matrix with orthonormal rows or columns, whichever are fewer (Saxe et al. 2014).

    The matrix is the factor Q of the QR decomposition of a matrix of normal random numbers. Multiplying its
    columns by the signs of the diagonal of R makes the distribution uniform (Mezzadri 2007). The arguments
    are those of `he`.
    """
    d_in, d_out = shape
    normal = tf.random.stateless_normal([max(shape), min(shape)], seed, alg="philox")
    q, r = tf.linalg.qr(normal)  # [max,min], [min,min]
    q *= tf.sign(tf.linalg.diag_part(r))  # [max,min] * [min]
    return q if d_in >= d_out else tf.transpose(q)


INITIALIZERS: dict[str, Initializer] = {
    each.__name__: each for each in (truncated_normal, he, glorot, lecun, orthogonal)
}
