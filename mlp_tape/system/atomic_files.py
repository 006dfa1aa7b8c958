"""Atomic file writes, and the location of the cache."""

import contextlib
import errno
import os
from pathlib import Path

BLOCK = 4096  # bytes, the unit in which file systems allocate space
SPARE = 1024  # bytes by which a file can grow in place


def write(path: Path, content: bytes) -> None:
    """Writes a file atomically: after a kill or power failure, it has its old or its new content."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically or, if the disk is full, in place of its old content.

    The file ends with spaces, so that the disk has room for a text that is somewhat longer.
    """
    content = text.encode()
    content = content.ljust(-(-(len(content) + SPARE) // BLOCK) * BLOCK)
    try:
        write(path, content)
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not is_full or not path.exists() or len(text.encode()) > path.stat().st_size:
            raise
        with path.open("r+b") as file:
            file.write(text.encode().ljust(path.stat().st_size))
            os.fsync(file.fileno())


def cache_directory() -> Path:
    """Returns the cache directory, which may not exist: `mlp_tape` in XDG_CACHE_HOME, else in ~/.cache.

    Raises:
        RuntimeError: the home directory cannot be determined.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mlp_tape"
