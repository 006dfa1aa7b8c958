"""Reader of IDX files, the format of MNIST, with or without gzip.

Source: https://yann.lecun.com/exdb/mnist, "The IDX file format".
"""

import functools
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mlp_tape.data import allocation
from mlp_tape.data.contents import Array
from mlp_tape.data.readers import compressed, npy
from mlp_tape.data.readers.stored import Stored

DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def stored(path: Path) -> Stored:
    """Returns the array of a file; the images of EMNIST, which are published transposed, are turned upright.

    Raises:
        ValueError: the file is damaged.
    """
    with compressed.opened(path) as file:
        shape, dtype = _header(file)
    if not compressed.is_compressed(path):
        declared = 4 + 4 * len(shape) + math.prod(shape) * dtype.itemsize
        npy.check_size(path.stat().st_size, declared)
    is_emnist = "emnist" in path.name.lower()
    is_transposed = is_emnist and len(shape) == 3
    remarks = ("the images of EMNIST are transposed, as they are published lying on their side",)
    return Stored(
        path,
        "",
        shape,
        functools.partial(_load, path, is_transposed),
        _class_names(path) if is_emnist and len(shape) == 1 else {},
        remarks if is_transposed else (),
    )


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Reads shape and dtype: two zero bytes, the code of the dtype, the number of dimensions, and these."""
    _, code, n = struct.unpack(">HBB", file.read(4))
    return struct.unpack(f">{n}I", file.read(4 * n)), np.dtype(DTYPES[code])


def _load(path: Path, is_transposed: bool) -> Array:
    """Reads an array to its end, where the checksum of a compressed file is compared."""
    with compressed.opened(path) as file:
        shape, dtype = _header(file)
        array = allocation.read_into(shape, dtype, file, str(path))
        if file.read(1):
            raise ValueError(f"it has more than the {len(array):,} rows that it declares")
    if is_transposed:
        for block in allocation.blocks(array):
            block[...] = block.swapaxes(1, 2).copy()
    return array


def _class_names(path: Path) -> Mapping[int, str]:
    """Returns the characters of the classes of EMNIST from the mapping file beside it, if it is there.

    A line is a class and the codes of its characters, such as `1 65 97` for A and a.
    """
    file = path.with_name(re.sub(r"-(train|test)-.*", "-mapping.txt", path.name))
    if file == path or not file.is_file():
        return {}
    rows = [[int(word) for word in line.split()] for line in file.read_text().splitlines() if line.strip()]
    return {label: "/".join(map(chr, codes)) for label, *codes in rows}
