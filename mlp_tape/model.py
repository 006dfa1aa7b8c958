"""The network in bare tensors: its parameters, the forward pass and the loss."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Params = dict[str, tf.Variable]  # w1, b1, w2, b2, ...
Activation = Callable[[tf.Tensor], tf.Tensor]
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

ACTIVATIONS: dict[str, Activation] = {"relu": tf.nn.relu}


def init_params(layer_sizes: Sequence[int], stddev: float, seed: int) -> Params:
    """Draws the first weights; biases are zeros.

    The draw is a pure function of its arguments, on every machine (Philox, a counter-based generator).

    Args:
        layer_sizes: the width of each layer, from the input's to the output's, such as [784, 256, 128, 10].
        stddev: of the normal distribution, which is cut off at two of them, above 0.
        seed: from 0 to 2**32 - 1.

    Returns:
        w1 float32 [d0, d1], b1 float32 [d1], w2 [d1, d2], b2 [d2], ...
    """
    params: Params = {}
    for layer, (d_in, d_out) in enumerate(itertools.pairwise(layer_sizes), start=1):
        w = tf.random.stateless_truncated_normal([d_in, d_out], [seed, layer], stddev=stddev, alg="philox")
        params[f"w{layer}"] = tf.Variable(w, name=f"w{layer}")
        params[f"b{layer}"] = tf.Variable(tf.zeros([d_out]), name=f"b{layer}")
    return params


def as_params(arrays: Mapping[str, NDArray[np.float32]]) -> Params:
    """Makes parameters of arrays that were kept: w1, b1, w2, b2, ..."""
    return {name: tf.Variable(array, name=name) for name, array in arrays.items()}


def to_float(x: tf.Tensor, scale: float) -> tf.Tensor:
    """Images as rows of floats: uint8 or float32 [b, ...] -> float32 [b, d], divided by `scale`."""
    return tf.reshape(tf.cast(x, tf.float32) / scale, [x.shape[0], -1])


def layers(params: Params, x: tf.Tensor, activation: Activation) -> Iterator[tuple[str, tf.Tensor]]:
    """Computes the network layer by layer.

    Args:
        params: as from `init_params`.
        x: float32 [b, d0].
        activation: between the layers; the last layer has none.

    Yields:
        (z1, float32 [b, d1]), (h1, the activation of z1), (z2, ...), ..., (logits, [b, classes]).
    """
    depth = len(params) // 2
    h = x
    for layer in range(1, depth):
        z = h @ params[f"w{layer}"] + params[f"b{layer}"]  # [b,784]@[784,256] + [256] -> [b,256]
        yield f"z{layer}", z
        h = activation(z)
        yield f"h{layer}", h
    yield "logits", h @ params[f"w{depth}"] + params[f"b{depth}"]  # [b,128]@[128,10] + [10] -> [b,10]


def forward(params: Params, x: tf.Tensor, activation: Activation) -> tf.Tensor:
    """Computes the scores of each class: the last of `layers`, float32 [b, classes], unbounded."""
    return dict(layers(params, x, activation))["logits"]


def mse(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the squared error against one-hot labels, mean over batch and classes.

    Args:
        y: int32 [b], from 0 to classes - 1.
        logits: float32 [b, classes].

    Returns:
        float32 [], (1 / (b * classes)) * sum of (one_hot(y) - logits)^2.
    """
    y_onehot = tf.one_hot(y, depth=logits.shape[1], dtype=logits.dtype)  # [b] -> [b,10]
    return tf.reduce_mean(tf.square(y_onehot - logits))


LOSSES: dict[str, Loss] = {"mse": mse}
