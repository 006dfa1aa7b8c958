"""SHA-256 of each parameter at the end of each epoch, from which it is proved that two runs are the same."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlp_tape.storage import run_paths

Checksums = dict[str, str]  # SHA-256 of the bytes of each parameter, in hexadecimal digits


def of_arrays(arrays: Mapping[str, NDArray[Any]]) -> Checksums:
    """Returns the checksum of each array, of its bytes in C order."""
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def append(directory: Path, step: int, found: Checksums) -> None:
    """Appends the checksums after a number of steps.

    A run that was killed may have appended a part of a line, or steps that it trains again once resumed.
    """
    with (directory / run_paths.CHECKSUMS).open("a+b") as file:
        is_whole = not file.tell() or (file.seek(-1, 2), file.read(1))[1] == b"\n"
        file.write((b"" if is_whole else b"\n") + json.dumps([step, found]).encode() + b"\n")


def read(path: Path) -> dict[int, Checksums]:
    """Returns the checksums by number of steps; empty if there is no such file, as of an earlier version."""
    found: dict[int, Checksums] = {}
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    for line in lines:
        try:
            step, of_step = json.loads(line)
            found[int(step)] = {str(name): str(each) for name, each in of_step.items()}
        except (ValueError, TypeError, AttributeError):  # incomplete
            continue
    return found
