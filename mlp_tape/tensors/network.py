"""The network in bare tensors: its parameters and the forward pass."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.tensors.activations import Activation
from mlp_tape.tensors.initializers import INITIALIZERS
from mlp_tape.tensors.scale import Scale

Params = dict[str, tf.Variable]  # w1, b1, w2, b2, ...
Dropout = Callable[[int, tf.Tensor], tf.Tensor]


def init_params(
    layer_sizes: Sequence[int], stddev: float, seed: int, init: str = "truncated_normal"
) -> Params:
    """Draws the initial weights; biases are zero.

    The result is a pure function of the arguments on every machine (Philox, a counter-based generator).

    Args:
        layer_sizes: width of each layer, from the input to the output, such as [784, 256, 128, 10].
        stddev: standard deviation for truncated_normal, above 0.
        seed: integer from 0 to 2**32 - 1.
        init: a key of INITIALIZERS.

    Returns:
        w1 float32 [d0, d1], b1 float32 [d1], w2 [d1, d2], b2 [d2], ...
    """
    params: Params = {}
    for layer, (d_in, d_out) in enumerate(itertools.pairwise(layer_sizes), start=1):
        w = INITIALIZERS[init]([d_in, d_out], [seed, layer], stddev)
        params[f"w{layer}"] = tf.Variable(w, name=f"w{layer}")
        params[f"b{layer}"] = tf.Variable(tf.zeros([d_out]), name=f"b{layer}")
    return params


def names(layer_sizes: Sequence[int]) -> list[str]:
    """Returns the names of the parameters: w1, b1, w2, b2, ..."""
    return [f"{kind}{layer}" for layer in range(1, len(layer_sizes)) for kind in "wb"]


def as_params(arrays: Mapping[str, NDArray[np.float32]]) -> Params:
    """Creates parameters from saved arrays w1, b1, w2, b2, ..."""
    return {name: tf.Variable(array, name=name) for name, array in arrays.items()}


def to_float(x: tf.Tensor, scale: Scale, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Flattens and scales images: uint8 or float32 [b, ...] -> `dtype` [b, d]."""
    if not scale.offset:
        return tf.reshape(tf.cast(x, dtype), [x.shape[0], -1]) / _constant(scale.divisor, dtype)
    rows = tf.reshape(tf.cast(x, tf.float32), [x.shape[0], -1])  # before the difference, not in bfloat16
    moved = rows - _constant(scale.offset, tf.float32)  # [b,d] - [d] -> [b,d]
    return tf.cast(moved / _constant(scale.divisor, tf.float32), dtype)


def _constant(values: tuple[float, ...], dtype: tf.DType) -> float | tf.Tensor:
    """Returns one number, or a tensor [d] of a number for each value of an image."""
    return values[0] if len(values) == 1 else tf.constant(values, dtype)


def forward(
    params: Mapping[str, tf.Tensor],
    x: tf.Tensor,
    activation: Activation,
    dropout: Dropout | None = None,
    trace: dict[str, tf.Tensor] | None = None,
) -> tf.Tensor:
    """Computes the logits.

    Args:
        params: parameters as returned by `init_params`, in the dtype of x.
        x: float [b, d0].
        activation: applied to the output of every layer but the last.
        dropout: applied to every hidden activation; called with the layer number, from 1, and the activation.
        trace: filled with every tensor in order: x, z1, h1 (the activation of z1, after dropout), z2, ...,
            logits.

    Returns:
        Logits in the dtype of x, [b, classes], unbounded.
    """
    trace = {} if trace is None else trace
    trace["x"] = h = x
    depth = len(params) // 2
    for layer in range(1, depth):
        z = h @ params[f"w{layer}"] + params[f"b{layer}"]  # [b,784]@[784,256] + [256] -> [b,256]
        h = activation(z)
        if dropout:
            h = dropout(layer, h)
        trace[f"z{layer}"], trace[f"h{layer}"] = z, h
    logits = h @ params[f"w{depth}"] + params[f"b{depth}"]  # [b,128]@[128,10] + [10] -> [b,10]
    trace["logits"] = logits
    return logits
