"""Loss functions, label smoothing, and the L2 penalty."""

from collections.abc import Callable, Mapping

import tensorflow as tf

from mlp_tape.tensors.constants import Constant, is_used

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def targets(y: tf.Tensor, logits: tf.Tensor, smoothing: Constant = 0.0) -> tf.Tensor:
    """Encodes the labels as one-hot vectors, optionally smoothed.

    With smoothing s, the targets are (1 - s) * one_hot(y) + s / classes (Szegedy et al. 2016, "Rethinking
    the Inception architecture", section 7).

    Args:
        y: labels, int32 [b], from 0 to classes - 1.
        logits: of any float dtype, [b, classes].
        smoothing: smoothing factor s, in [0, 1).

    Returns:
        A tensor of the dtype and shape of the logits.
    """
    one_hot = tf.one_hot(y, depth=logits.shape[1], dtype=logits.dtype)  # [b] -> [b,10]
    if not is_used(smoothing):
        return one_hot
    each = tf.cast(smoothing / logits.shape[1], logits.dtype)
    return tf.cast(1 - smoothing, logits.dtype) * one_hot + each


def mse(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the mean squared error over batch and classes, the loss of the original program.

    Args:
        targets: float [b, classes], as returned by `targets`.
        logits: a tensor of the same dtype and shape.

    Returns:
        A scalar, (1 / (b * classes)) * sum of (targets - logits)^2.
    """
    return tf.reduce_mean(tf.square(targets - logits))


def cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the cross-entropy of the softmax of the logits, averaged over the batch.

    log softmax(z)_k = z_k - max(z) - log(sum_j exp(z_j - max(z))), which does not overflow for any z
    (Goodfellow et al. 2016, "Deep learning", section 4.1).

    Args:
        targets: float [b, classes], as returned by `targets`.
        logits: a tensor of the same dtype and shape.

    Returns:
        A scalar, (1 / b) * sum of -targets * log softmax(logits), in nats.
    """
    shifted = logits - tf.stop_gradient(tf.reduce_max(logits, axis=1, keepdims=True))  # [b,10] - [b,1]
    log_sum = tf.math.log(tf.reduce_sum(tf.exp(shifted), axis=1, keepdims=True))  # [b,10] -> [b,1]
    return -tf.reduce_mean(tf.reduce_sum(targets * (shifted - log_sum), axis=1))  # [b,10] -> [b] -> []


def l2(params: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Computes the sum of the squares of all weights, excluding biases.

    Args:
        params: w1, b1, w2, b2, ...

    Returns:
        A scalar.
    """
    return tf.add_n([tf.reduce_sum(tf.square(param)) for name, param in params.items() if name[0] == "w"])


LOSSES: dict[str, Loss] = {"mse": mse, "cross_entropy": cross_entropy}
