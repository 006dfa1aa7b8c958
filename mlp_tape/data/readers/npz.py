"""Reader of `.npz` archives of NumPy arrays."""

import math
import os
import zipfile
from pathlib import Path

import numpy as np

from mlp_tape.data import contents
from mlp_tape.data.contents import KEYS, Arrays, Contents, Reading
from mlp_tape.errors import DataError


def read(path: Path, reading: Reading) -> Contents:
    """Reads a file with the arrays x_train, y_train, x_test and y_test."""
    return contents.of_arrays(arrays(path), path)


def _check_uncompressed_size(path: Path, archive: zipfile.ZipFile) -> None:
    """Checks the declared sizes of the archive's members before any is unpacked.

    Raises:
        ValueError: the size of a member contradicts its shape and dtype.
        DataError: the arrays would not fit into memory.
    """
    members = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in KEYS]
    size, memory = sum(info.file_size for info in members), _memory()
    for info in members:
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            known = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version in known:
                shape, _, dtype = known[version](member)
                claimed = member.tell() + math.prod(shape) * dtype.itemsize
                if claimed != info.file_size and not dtype.hasobject:
                    raise ValueError(f"{info.filename} is damaged: {info.file_size:,} of {claimed:,} bytes")
    if size > memory:
        raise DataError(
            f"{path} needs {size / 2**30:,.1f} GiB of memory, but there are only {memory / 2**30:,.1f}",
            "use a smaller file",
        )


def _memory() -> int:
    """Returns the size of this machine's memory in bytes; 1 TiB if it is unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40


def arrays(path: Path) -> Arrays:
    """Reads the four arrays of an `.npz` file, without checking their contents.

    Arrays that would not fit into memory are not unpacked, and pickled objects are not loaded.

    Raises:
        DataError: the file is missing, damaged or too large, or lacks one of the arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive]
            if missing:
                raise DataError(
                    f"{path} has no {', '.join(missing)}; it has {', '.join(archive) or 'nothing'}",
                    "save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)",
                )
            _check_uncompressed_size(path, archive.zip)
            return {key: archive[key] for key in KEYS}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "set dataset.path=FILE.npz to an existing file") from error
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy do not document what damaged data raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path} cannot be read as an .npz of plain arrays: {first}",
            "save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)",
        ) from error
