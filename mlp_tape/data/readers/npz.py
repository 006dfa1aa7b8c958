"""Reader of `.npz` archives of NumPy arrays."""

import functools
import math
import zipfile
from pathlib import Path

from mlp_tape.data import allocation
from mlp_tape.data.contents import KEYS, Array, Arrays
from mlp_tape.data.readers import damage, kinds, npy, stored
from mlp_tape.data.readers.stored import Stored
from mlp_tape.errors import DataError


def arrays(path: Path) -> Arrays:
    """Reads the arrays x_train, y_train, x_test and y_test of an `.npz` file.

    Raises:
        DataError: the file is missing, damaged or too large, or lacks one of the arrays.
    """
    if not path.is_file():
        raise kinds.refusal(path, "missing")
    with damage.named(path):
        found = {each.key: each for each in stored_arrays(path)}
        missing = [key for key in KEYS if key not in found]
        if missing:
            raise DataError(f"{path} has no {', '.join(missing)}; it has {', '.join(found)}", stored.SAVE)
        return {key: found[key].load() for key in KEYS}


def stored_arrays(path: Path) -> list[Stored]:
    """Returns the arrays of an archive; those saved without names are named by their shapes.

    Raises:
        ValueError: the archive is damaged.
        DataError: an array consists of Python objects.
    """
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        shapes = [_checked_shape(archive, info) for info in members]
    keys = [info.filename.removesuffix(".npy") for info in members]
    names = _by_position(dict(zip(keys, shapes, strict=True)))
    remarks = tuple(f"{key} is taken as {name}" for key, name in names.items())
    return [
        Stored(path, names.get(key, key), shape, functools.partial(_load, path, info), remarks=remarks)
        for key, shape, info in zip(keys, shapes, members, strict=True)
    ]


def _checked_shape(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    """Returns the shape of a member whose declared size, as the archive has it, fits."""
    with archive.open(info) as member:
        shape, _, dtype = npy.header(member, info.filename.removesuffix(".npy"))  # type: ignore[arg-type]
        npy.check_size(info.file_size, member.tell() + math.prod(shape) * dtype.itemsize)
    return shape


def _load(path: Path, info: zipfile.ZipInfo) -> Array:
    """Reads a member; it is not mapped to memory, where it would not be aligned for TensorFlow."""
    with zipfile.ZipFile(path) as archive, archive.open(info) as member:
        shape, is_fortran, dtype = npy.header(member, info.filename)  # type: ignore[arg-type]
        order = shape[::-1] if is_fortran else shape
        array = allocation.read_into(order, dtype, member, f"{path}: {info.filename}")  # type: ignore[arg-type]
        member.read(1)  # at its end, the checksum is compared
    return array.T if is_fortran else array


def _by_position(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Returns names for the arrays of `numpy.savez(path, x, y)`, or of four arrays, by their shapes."""
    keys = [key for key in shapes if key.startswith("arr_")]
    x = [key for key in keys if len(shapes[key]) > 1 and shapes[key][1:] != (1,)]
    y = [key for key in keys if key not in x]
    if len(keys) != len(shapes) or len(x) != len(y) or len(x) > 2:
        return {}
    if any(shapes[a][:1] != shapes[b][:1] for a, b in zip(x, y, strict=True)):
        return {}
    names = ("x_train", "x_test", "y_train", "y_test") if len(x) == 2 else ("x_train", "y_train")
    return dict(zip([*x, *y], names, strict=True))
