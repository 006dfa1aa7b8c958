"""Checkpoints: arrays and a JSON description, written so that a kill leaves the previous one intact."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_tape.errors import BrokenFileError
from mlp_tape.system import atomic_files

KEPT = 2
BEST = "best/"  # prefix of the names of the best parameters so far
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run before a step.

    Attributes:
        step: global number of the next step, equal to the number of steps completed.
        arrays: arrays by name: w1, b1, w2, b2, ...
        about: additional information, JSON-serializable.
    """

    step: int
    arrays: Arrays
    about: dict[str, Any]


def params(found: Checkpoint) -> Arrays:
    """Returns the parameters: the best ones so far, if there are validation images, else the last ones."""
    best = {name.removeprefix(BEST): each for name, each in found.arrays.items() if name.startswith(BEST)}
    return best or {name: each for name, each in found.arrays.items() if "/" not in name}


def save(directory: Path, step: int, arrays: Arrays, about: dict[str, Any]) -> None:
    """Writes `step-N.npz`, then `step-N.json`, which makes it valid; deletes all but the last two.

    Args:
        directory: directory of the checkpoints; created if it does not exist.
        step: global number of the next step.
        arrays: arrays by name.
        about: additional information, JSON-serializable.
    """
    directory.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    shapes = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    described = about | {"step": step, "arrays": shapes}
    described["sha256"] = _checksum(buffer.getvalue(), described)
    path = directory / f"step-{step:09d}.npz"
    atomic_files.write(path, buffer.getvalue())
    atomic_files.write(path.with_suffix(".json"), json.dumps(described, indent=1).encode())
    kept = {path.stem for path in _newest_first(directory)[:KEPT]}
    for file in directory.glob("step-*"):
        if file.name.partition(".")[0] not in kept:
            file.unlink()


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: path of its `step-N.json`.

    Raises:
        BrokenFileError: the description or the arrays are damaged, or the arrays are missing.
    """
    try:
        content = path.with_suffix(".npz").read_bytes()
        about = json.loads(path.read_bytes())
        if about.pop("sha256") != _checksum(content, about):
            raise ValueError("its checksum differs")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return Checkpoint(int(about["step"]), dict(archive), about)
    except FileNotFoundError as error:
        raise BrokenFileError(f"{path.stem} has no arrays", "use another checkpoint") from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise BrokenFileError(f"{path.stem} is damaged: {error}", "use another checkpoint") from error


def usable(directory: Path, say: Callable[[str], None]) -> Iterator[Checkpoint]:
    """Yields the checkpoints that can be read, newest first; reports the others through `say`."""
    for path in _newest_first(directory):
        try:
            yield load(path)
        except BrokenFileError as error:
            say(f"checkpoint {error.what}")


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*.json"), reverse=True)


def _checksum(content: bytes, about: dict[str, Any]) -> str:
    """Returns the SHA-256 of the arrays' file and the description."""
    return hashlib.sha256(content + json.dumps(about, sort_keys=True).encode()).hexdigest()
