"""Rows that are set aside: for the test, of data without a test part, and for validation."""

import math

import numpy as np
from numpy.typing import NDArray

from mlp_tape.data import allocation
from mlp_tape.data.contents import Array
from mlp_tape.errors import DataError
from mlp_tape.system.formatting import count

Pair = tuple[Array, Array]
Rows = NDArray[np.int64]


def stratified(y: NDArray[np.int32], fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Chooses a fraction of the rows of each class, at random.

    Args:
        y: class numbers, int32 [n].
        fraction: fraction of each class to choose, above 0 and below 1. Of a class with at least two rows,
            one or more are chosen, and one or more remain; a class with a single row remains.
        seed: determines the choice.

    Returns:
        The numbers of the rows that remain and of those chosen, in ascending order, int64.

    Raises:
        DataError: no row can be chosen.
    """
    random = np.random.default_rng(seed)
    is_chosen = np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        n = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        is_chosen[random.permutation(rows)[:n]] = True
    if not is_chosen.any():
        raise DataError(
            f"there is no test part, and none of {count(len(y), 'row')} can be split off",
            "provide at least two rows of a class",
        )
    return np.flatnonzero(~is_chosen), np.flatnonzero(is_chosen)


def number_held_out(n: int, fraction: float) -> int:
    """Returns how many of n rows `held_out` chooses; raises as it does."""
    chosen = max(1, round(fraction * n))
    if chosen >= n:
        raise DataError(
            f"validation_fraction={fraction:g} of {count(n, 'image')} leaves none to train on",
            "choose a smaller fraction",
        )
    return chosen


def held_out(n: int, fraction: float, seed: int = 0) -> tuple[Rows, Rows]:
    """Chooses a fraction of n rows at random.

    Args:
        n: number of rows.
        fraction: fraction of the rows to choose, above 0 and below 1; at least one row.
        seed: determines the choice.

    Returns:
        The numbers of the rows that remain and of those chosen, in ascending order, int64.

    Raises:
        DataError: no row would remain.
    """
    chosen = number_held_out(n, fraction)
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[chosen:]), np.sort(order[:chosen])


def taken(pair: Pair, rows: Rows) -> Pair:
    """Returns the given rows of images and labels, in a temporary file if they are too large for memory."""
    x, y = pair
    made = allocation.allocate((len(rows), *x.shape[1:]), x.dtype, "a part of the data")
    np.take(x, rows, axis=0, out=made, mode="clip")  # the default mode would buffer the output
    return made, y[rows]


def is_sorted(y: NDArray[np.int32]) -> bool:
    """Returns whether rows of the same class follow each other, much more often than in a random order."""
    share = np.bincount(y) / len(y)
    expected = len(y) * (1 - float(np.square(share).sum()))  # changes of class in a random order
    changes = int(np.count_nonzero(np.diff(y)))
    return math.floor(expected) > 10 and changes < expected / 5
