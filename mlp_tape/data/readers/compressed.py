"""Files that may be compressed with gzip."""

import gzip
from pathlib import Path
from typing import BinaryIO

MAGIC = b"\x1f\x8b"


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def opened(path: Path) -> BinaryIO:
    """Opens a file to read its content, decompressed if it is compressed."""
    return gzip.open(path) if is_compressed(path) else path.open("rb")  # type: ignore[return-value]
