"""Losses: how far the scores are from the labels, and what large weights cost."""

from collections.abc import Callable, Mapping

import tensorflow as tf

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def targets(y: tf.Tensor, logits: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Makes of each label what the scores should be: 1 for its class and 0 for the others.

    With smoothing s (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7) it is
    (1 - s) * one_hot(y) + s / classes.

    Args:
        y: int32 [b], from 0 to classes - 1.
        logits: of any float dtype, [b, classes].
        smoothing: from 0 to below 1.

    Returns:
        Of the dtype and shape of the logits.
    """
    one_hot = tf.one_hot(y, depth=logits.shape[1], dtype=logits.dtype)  # [b] -> [b,10]
    return one_hot if not smoothing else (1 - smoothing) * one_hot + smoothing / logits.shape[1]


def mse(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the squared error, mean over batch and classes: the seed program's loss.

    Args:
        targets: float [b, classes], as from `targets`.
        logits: of the same dtype and shape.

    Returns:
        [], (1 / (b * classes)) * sum of (targets - logits)^2.
    """
    return tf.reduce_mean(tf.square(targets - logits))


def cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the cross-entropy of the softmax of the logits, mean over the batch.

    log softmax(z)_k = z_k - max(z) - log(sum_j exp(z_j - max(z))), which overflows for no z (Goodfellow et
    al. 2016, "Deep learning", section 4.1).

    Args:
        targets: float [b, classes], as from `targets`.
        logits: of the same dtype and shape.

    Returns:
        [], (1 / b) * sum of -targets * log softmax(logits), in nats.
    """
    shifted = logits - tf.stop_gradient(tf.reduce_max(logits, axis=1, keepdims=True))  # [b,10] - [b,1]
    log_sum = tf.math.log(tf.reduce_sum(tf.exp(shifted), axis=1, keepdims=True))  # [b,10] -> [b,1]
    return -tf.reduce_mean(tf.reduce_sum(targets * (shifted - log_sum), axis=1))  # [b,10] -> [b] -> []


def l2(params: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Computes the sum of the squares of all weights, biases left out; [], to be added by some factor.

    Args:
        params: w1, b1, w2, b2, ...
    """
    return tf.add_n([tf.reduce_sum(tf.square(param)) for name, param in params.items() if name[0] == "w"])


LOSSES: dict[str, Loss] = {"mse": mse, "cross_entropy": cross_entropy}
