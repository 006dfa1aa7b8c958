"""Arrays in memory that TensorFlow can use as it is, so that the images are there once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64  # bytes: what TensorFlow's kernels take for granted


def empty(shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """An array of any content, aligned."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    made: NDArray[Any] = buffer[start : start + size].view(dtype).reshape(shape)
    return made


def aligned(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """The values as an aligned, contiguous array of a dtype: the array itself where it is that."""
    if is_usable(array) and array.dtype == dtype:
        return array
    made = empty(array.shape, dtype)
    made[...] = array
    return made


def taken(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Some rows, in an order, as an aligned array."""
    made = empty((len(rows), *array.shape[1:]), array.dtype)
    np.take(array, rows, axis=0, out=made, mode="clip")  # without a mode, NumPy fills a buffer first
    return made


def is_usable(array: NDArray[Any]) -> bool:
    """Whether TensorFlow can work on the array's own memory."""
    flags = array.flags
    return bool(flags.c_contiguous and flags.writeable and array.ctypes.data % ALIGNMENT == 0)
