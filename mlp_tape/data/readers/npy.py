"""Reader of `.npy` files, which contain one NumPy array each."""

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mlp_tape.data.readers.stored import Stored
from mlp_tape.errors import DataError

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def stored(path: Path) -> Stored:
    """Returns the array of a file, which is mapped to memory and not read when it is loaded.

    Raises:
        ValueError: the file is damaged.
        DataError: the array consists of Python objects.
    """
    with path.open("rb") as file:
        shape, _, dtype = header(file, path)
        check_size(path.stat().st_size, file.tell() + math.prod(shape) * dtype.itemsize)
    # copied on write: TensorFlow uses only memory that could be written to
    return Stored(path, "", shape, lambda: np.load(path, mmap_mode="c" if math.prod(shape) else None))


def header(file: BinaryIO, name: object) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Reads shape, whether it is in Fortran order, and dtype of an array.

    Args:
        file: file or member of an archive, at its start.
        name: name of the array in the message.

    Raises:
        ValueError: the header is damaged.
        DataError: the array consists of Python objects.
    """
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the format is not known")
    shape, is_fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise DataError(
            f"{name} consists of Python objects, which are pickled and not opened here",
            "save numbers of one shape and dtype, and names with y.astype(str)",
        )
    if any(n < 0 for n in shape):
        raise ValueError(f"the shape {shape} is not possible")
    return shape, is_fortran, dtype


def check_size(size: int, declared: int) -> None:
    """Checks the size of a file or member in bytes.

    Raises:
        ValueError: it is not the declared one.
    """
    if size != declared:
        raise ValueError(f"it has {size:,} of {declared:,} bytes")
