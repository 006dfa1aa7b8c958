"""Reader of MATLAB's `.mat` files up to version 7, such as those of EMNIST and SVHN; later ones are HDF5."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlp_tape.data.contents import Array
from mlp_tape.data.readers.roles import role
from mlp_tape.data.readers.stored import Stored

SIDE = 28  # pixels of an image of EMNIST


def stored_arrays(path: Path) -> list[Stored]:
    """Reads the variables of a file; those of a structure have keys such as `dataset.train.images`."""
    import scipy.io

    variables = dict(_flat("", scipy.io.loadmat(path, simplify_cells=True)))
    mapping = variables.pop("dataset.mapping", None)  # only EMNIST has it
    class_names: dict[int, str] = {}
    remarks: tuple[str, ...] = ()
    if mapping is not None:
        class_names = {int(row[0]): "/".join(map(chr, row[1:])) for row in mapping}
        remarks = ("the images of EMNIST are transposed, as they are published column by column",)
    arrays = rows_first(variables)
    for key, array in arrays.items():
        if mapping is not None and array.ndim == 2 and array.shape[1] == SIDE * SIDE:
            arrays[key] = array.reshape(-1, SIDE, SIDE).swapaxes(1, 2)  # [n,784] -> [n,28,28]
    return [
        Stored(path, key, array.shape, lambda array=array: array, class_names, remarks)  # type: ignore[misc]
        for key, array in arrays.items()
    ]


def _flat(prefix: str, variables: Mapping[str, Any]) -> list[tuple[str, Array]]:
    """Returns the arrays of nested structures."""
    found = []
    for name, value in variables.items():
        if isinstance(value, dict):
            found += _flat(f"{prefix}{name}.", value)
        elif isinstance(value, np.ndarray) and value.ndim and not value.dtype.hasobject:
            found.append((prefix + name, value))
    return found


def rows_first(variables: Mapping[str, Array]) -> dict[str, Array]:
    """Returns arrays with the rows as the first axis, which are often the last one in MATLAB.

    Args:
        variables: arrays by name; labels are [n], [n,1] or [1,n] and tell the number of rows of their part.
    """
    arrays, n_rows = dict(variables), {}
    for name, array in variables.items():
        if role(name).kind == "y" and array.size == max(array.shape, default=0):
            arrays[name] = array.reshape(-1)
            n_rows[role(name).part] = array.size
    for name, array in arrays.items():
        n = n_rows.get(role(name).part)
        if role(name).kind == "x" and array.ndim > 1 and array.shape[-1] == n != array.shape[0]:
            arrays[name] = np.moveaxis(array, -1, 0)  # [..., n] -> [n, ...]
    return arrays
