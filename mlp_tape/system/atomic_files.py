"""Files that are there whole or not at all."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Writes a file so that a kill or a power cut at any moment leaves the old one or the new one."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def cache_directory() -> Path:
    """Where what can be made or fetched again is kept: `mlp_tape` in XDG_CACHE_HOME, else in ~/.cache.

    Raises:
        RuntimeError: there is no home.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mlp_tape"
