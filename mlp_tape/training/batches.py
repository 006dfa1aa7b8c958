"""Images and labels cut into batches, and their order, which is a pure function of seed and epoch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.training import host_arrays

Batches = tuple[tf.Tensor, tf.Tensor]  # images [k, b, ...] and labels [k, b]


@dataclass(frozen=True)
class Prepared:
    """Images and labels as tensors, cut into batches, for any number of epochs and runs.

    Attributes:
        full: the full batches, images uint8 or float32 [k, size, ...] and labels int32 [k, size].
        rest: the smaller last batch, [1, r, ...] and [1, r]; r may be 0.
    """

    full: Batches
    rest: Batches


def prepare(x: NDArray[Any], y: NDArray[Any], batch_size: int) -> Prepared:
    """Cuts images and labels into batches.

    Args:
        x: uint8 or float32 [n, ...]; not to be changed as long as the batches are used, which share its
            memory where it is aligned (`memory.aligned`).
        y: int32 [n].
        batch_size: images a batch.
    """
    n = len(x) // batch_size * batch_size
    full = x[:n].reshape(-1, batch_size, *x.shape[1:]), y[:n].reshape(-1, batch_size)
    rest = x[n:][None], y[n:][None]
    return Prepared(*((_tensor(images), _tensor(labels)) for images, labels in (full, rest)))


def _tensor(array: NDArray[Any]) -> tf.Tensor:
    """The array as a tensor, on the same memory where that can be."""
    if not array.size or not host_arrays.is_usable(array) or tf.config.list_logical_devices("GPU"):
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def order(n: int, shuffle_seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of n images in a shuffled epoch, int64 [n]: a pure function of its arguments."""
    return np.random.default_rng([shuffle_seed, epoch]).permutation(n)


def shuffled(x: NDArray[Any], y: NDArray[Any], batch_size: int, shuffle_seed: int, epoch: int) -> Prepared:
    """The batches of a shuffled epoch; the arguments are as of `prepare` and `order`."""
    rows = order(len(x), shuffle_seed, epoch)
    return prepare(host_arrays.taken(x, rows), y[rows], batch_size)


def batch(
    x: NDArray[Any], y: NDArray[Any], batch_size: int, global_step: int, shuffle_seed: int | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The images and labels that `train` takes at a step; the arguments are as there."""
    epoch, start = divmod(global_step, -(-len(x) // batch_size))
    rows: Any = slice(start * batch_size, (start + 1) * batch_size)
    if shuffle_seed is not None:
        rows = order(len(x), shuffle_seed, epoch)[rows]
    return x[rows], y[rows]
