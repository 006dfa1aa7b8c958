"""Implementations of one epoch of the default network, one module per framework.

Each module has `VARIANTS`, the names of its variants, and `prepare(variant, x, y, start)`. Given all images
(uint8 [60000, 28, 28]), labels (int32 [60000]) and the initial weights (w1, b1, w2, b2, w3, b3), it returns
two functions: one trains an epoch in the given order, including the partial batch, the other returns the
weights as NumPy arrays. Work that is needed only once, such as scaling the images, is done by `prepare`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = list[NDArray[np.float32]]
Loop = tuple[Callable[[], Any], Callable[[], Weights]]

SIZES = (784, 256, 128, 10)
BATCH = 128
LR = 0.001


def first_weights(sizes: Sequence[int] = SIZES) -> Weights:
    """Returns w1, b1, w2, b2, ...: normal with standard deviation 0.1, truncated at two; biases are zero."""
    rng, weights = np.random.default_rng(0), []
    for d_in, d_out in itertools.pairwise(sizes):
        w = rng.standard_normal((d_in, d_out))
        while (outside := np.abs(w) > 2).any():
            w[outside] = rng.standard_normal(int(outside.sum()))
        weights += [(0.1 * w).astype(np.float32), np.zeros(d_out, np.float32)]
    return weights


def multiplications(n: int, sizes: Sequence[int] = SIZES) -> float:
    """Returns the number of floating-point operations in the matrix products of an epoch.

    Each layer has three products: forward, and the gradients of its weights and of its inputs. The first
    layer has two, as the gradient of the images is not needed.
    """
    pairs = list(itertools.pairwise(sizes))
    return 2.0 * n * (3 * sum(a * b for a, b in pairs) - pairs[0][0] * pairs[0][1])
