"""Readers of people's files, one format a module; which one reads a file is decided by its content."""

from pathlib import Path

from mlp_tape.data.contents import Contents, Reading
from mlp_tape.data.readers import npz


def read(path: Path, reading: Reading) -> Contents:
    """Reads a file or a directory.

    Args:
        path: file or directory in one of the formats of this package.
        reading: choices of the user.

    Raises:
        DataError: the path does not exist, or its content is of no known format, damaged or too large.
    """
    return npz.read(path, reading)
