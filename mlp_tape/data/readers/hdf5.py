"""Reader of HDF5 files, also those of MATLAB 7.3."""

import functools
import math
from pathlib import Path

from mlp_tape.data import allocation
from mlp_tape.data.contents import Array
from mlp_tape.data.readers.matlab import rows_first
from mlp_tape.data.readers.stored import Stored


def stored_arrays(path: Path) -> list[Stored]:
    """Returns the arrays of a file, whose keys are those of the groups as well, such as `train/images`."""
    import h5py

    shapes: dict[str, tuple[int, ...]] = {}

    def visit(key: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            shapes[key] = item.shape

    with h5py.File(path) as file:
        file.visititems(visit)
        is_matlab = "MATLAB_class" in {name for key in shapes for name in file[key].attrs}
    if not is_matlab:
        return [
            Stored(path, key, shape, functools.partial(_load, path, key)) for key, shape in shapes.items()
        ]
    arrays = rows_first({key: _load(path, key).T for key in shapes if not key.startswith("#")})
    return [
        Stored(path, key, array.shape, lambda array=array: array)  # type: ignore[misc]
        for key, array in arrays.items()
    ]


def _load(path: Path, key: str) -> Array:
    """Reads an array; texts are read as such."""
    import h5py

    with h5py.File(path) as file:
        data = file[key]
        if h5py.check_string_dtype(data.dtype):
            texts: Array = data.asstr()[...].astype(str)
            return texts
        array = allocation.allocate(data.shape, data.dtype, f"{path}: {key}")
        if math.prod(data.shape):
            data.read_direct(array)
        return array
