"""Atomic file writes, and the location of the cache."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Writes a file atomically: after a kill or power failure, it has its old or its new content."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def cache_directory() -> Path:
    """Returns the cache directory, which may not exist: `mlp_tape` in XDG_CACHE_HOME, else in ~/.cache.

    Raises:
        RuntimeError: the home directory cannot be determined.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mlp_tape"
