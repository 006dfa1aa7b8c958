"""Arrays for data of any size: in memory, or in a temporary file beyond half of this machine's memory."""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from mlp_tape.data.contents import Array
from mlp_tape.errors import DataError
from mlp_tape.training import host_arrays

CHUNK = 2**24  # bytes that are read or converted at once


def memory() -> int:
    """Returns the size of this machine's memory in bytes; 1 TiB if it is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40


def allocate(shape: Sequence[int], dtype: npt.DTypeLike, what: str = "the data set") -> Array:
    """Returns an aligned, uninitialized array, which TensorFlow can use without a copy.

    An array of more than half of the memory is mapped to a temporary file without a name, which is deleted
    with the array. It is in TMPDIR or /var/tmp, since /tmp is often a part of the memory.

    Args:
        shape: shape of the array, such as one that a file declares.
        dtype: dtype of the array.
        what: name of the array in the message.

    Raises:
        DataError: there is not enough space for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= memory() // 2:
        return host_arrays.empty(shape, dtype)
    directory = _directory()
    free = shutil.disk_usage(directory).free
    if size >= free:
        raise _no_space(what, size, directory, free)
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk would kill the process later
        except AttributeError:  # macOS
            file.truncate(size)
        except OSError as error:
            raise _no_space(what, size, directory, free) from error
        return np.ndarray(shape, dtype, np.memmap(file, np.uint8, "r+", shape=(size,)))


def _directory() -> Path:
    large = Path("/var/tmp")
    return large if "TMPDIR" not in os.environ and large.is_dir() else Path(tempfile.gettempdir())


def _no_space(what: str, size: int, directory: Path, free: int) -> DataError:
    return DataError(
        f"{what} needs {size / 2**30:,.1f} GiB, more than half of the memory "
        f"({memory() / 2**30:,.1f} GiB) and than is free in {directory} ({free / 2**30:,.1f} GiB)",
        "use a smaller file, or set the variable TMPDIR to a directory on a larger disk",
    )


def read_into(shape: Sequence[int], dtype: npt.DTypeLike, stream: BinaryIO, what: str) -> Array:
    """Returns an array with the following bytes of a stream, in native byte order.

    Raises:
        DataError: there is not enough space for it.
        EOFError: the stream ends early.
    """
    array = allocate(shape, dtype, what)
    flat = array.reshape(-1).view(np.uint8)
    done = 0
    while done < len(flat):
        n = stream.readinto(flat[done : done + CHUNK].data)  # type: ignore[attr-defined]
        if not n:
            raise EOFError(f"it ends after {done:,} of {len(flat):,} bytes")
        done += n
    if not array.dtype.isnative:
        array = array.byteswap(inplace=True).view(array.dtype.newbyteorder())
    return array


def blocks(array: Array) -> Iterator[Array]:
    """Yields the rows of an array in blocks of about CHUNK bytes, as views."""
    step = max(1, CHUNK * len(array) // max(1, array.nbytes))
    for start in range(0, len(array), step):
        yield array[start : start + step]
