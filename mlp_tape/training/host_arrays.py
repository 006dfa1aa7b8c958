"""NumPy arrays whose memory TensorFlow can use without a copy, so that images are held only once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64  # bytes, as TensorFlow's kernels require


def empty(shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """Returns an aligned, uninitialized array."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    made: NDArray[Any] = buffer[start : start + size].view(dtype).reshape(shape)
    return made


def aligned(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Returns an aligned, contiguous array of a dtype: the given array if it is one already, else a copy.

    A memory-mapped array of that dtype is returned as it is: it may be larger than memory.
    """
    if array.dtype == dtype and (is_usable(array) or isinstance(_root(array), np.memmap)):
        return array
    made = empty(array.shape, dtype)
    made[...] = array
    return made


def taken(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Returns the rows with the given indices, int64 [n], as an aligned array."""
    made = empty((len(rows), *array.shape[1:]), array.dtype)
    np.take(array, rows, axis=0, out=made, mode="clip")  # the default mode would buffer the output
    return made


def is_usable(array: NDArray[Any]) -> bool:
    """Returns whether TensorFlow can use the memory of the array without a copy."""
    flags = array.flags
    return bool(flags.c_contiguous and flags.writeable and array.ctypes.data % ALIGNMENT == 0)


def _root(array: Any) -> Any:
    """Returns the array whose memory another one shares."""
    while not isinstance(array, np.memmap) and isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array
