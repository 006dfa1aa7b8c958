"""One epoch of the seed's network, a file for each way of writing it.

Each module has `VARIANTS`, the names it answers to, and `prepare(variant, x, y, start)`: given all images
(uint8 [60000, 28, 28]), labels (int32 [60000]) and the first weights (w1, b1, w2, b2, w3, b3), it returns two
functions: one that trains an epoch in the given order, the partial batch included, and one that returns the
weights as NumPy arrays. What has to be done once only, such as scaling the images, is done before.
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
    """w1, b1, w2, b2, ...: normal with a standard deviation of 0.1, cut off at two of them; biases zeros."""
    rng, weights = np.random.default_rng(0), []
    for d_in, d_out in itertools.pairwise(sizes):
        w = rng.standard_normal((d_in, d_out))
        while (far := np.abs(w) > 2).any():
            w[far] = rng.standard_normal(int(far.sum()))
        weights += [(0.1 * w).astype(np.float32), np.zeros(d_out, np.float32)]
    return weights


def multiplications(n: int, sizes: Sequence[int] = SIZES) -> float:
    """Floating-point operations of an epoch's matrix products: forward, and the gradients of w and of h.

    The images' own gradient is nobody's business, so the first layer has two products, the others three.
    """
    pairs = list(itertools.pairwise(sizes))
    return 2.0 * n * (3 * sum(a * b for a, b in pairs) - pairs[0][0] * pairs[0][1])
