"""Images and rows without labels, for predictions: image files, tables and arrays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_tape.data.contents import Array, Reading
from mlp_tape.data.readers import arrays, damage, folders, images, kinds, tables, text_tables
from mlp_tape.data.readers.roles import of_file, role
from mlp_tape.data.readers.stored import Stored
from mlp_tape.errors import DataError
from mlp_tape.system.formatting import count

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("text", "text.gz", "parquet")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images or rows of one file or directory.

    Attributes:
        source: the file or directory.
        x: images or rows, [n, ...], with values as in the file.
        names: name of each image or row, such as that of its file.
        ids: column that numbers the rows of a table, by its name; empty if there is none.
        remarks: how they were understood, a line each.
    """

    source: Path
    x: Array
    names: Sequence[str]
    ids: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def read(path: Path, shape: tuple[int, ...]) -> Inputs:
    """Reads images or rows of the shape of those that a network was trained on.

    Args:
        path: an image file, a directory of image files, a table as text or Parquet, or a file of arrays.
        shape: shape of an image or row. Image files of another size are resized to it, and read in grey or in
            color as it says. The columns of a table that number the rows or have the labels are left out.

    Raises:
        DataError: the file cannot be read, or has images or rows of another shape.
    """
    kind = kinds.kind(path)
    if kind in ("image", "directory"):
        return _of_images(path, shape)
    if kind in TABLES:
        return _of_table(path, kind, shape)
    if kind in arrays.READERS:
        return _of_arrays(path, kind, shape)
    if kind == "missing":
        raise DataError(f"{path} does not exist", "type the path of a file, or of a directory of images")
    raise kinds.refusal(path, kind)


def _of_images(path: Path, shape: tuple[int, ...]) -> Inputs:
    files = [path] if path.is_file() else folders.image_files(path)
    if not files:
        raise DataError(f"{path} contains no images", "type the name of a directory with image files")
    is_color = len(shape) == 3 and shape[-1] == 3
    size = (shape[0], shape[1]) if len(shape) == 2 or is_color else _square(shape)
    if size is None:
        raise DataError(
            f"{path} is an image, but the network was trained on rows of {math.prod(shape)} values",
            "type the name of a table with such rows",
        )
    reading = Reading(image_size=size, image_mode="color" if is_color else "grey")
    stacked, remarks = images.stack({"": [(str(file), file) for file in files]}, reading, path)
    return Inputs(path, stacked[""], [str(file) for file in files], remarks=tuple(remarks))


def _square(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Returns the size of square images that were trained on as rows of pixels."""
    side = math.isqrt(shape[0])
    return (side, side) if len(shape) == 1 and side * side == shape[0] else None


def _of_table(path: Path, kind: str, shape: tuple[int, ...]) -> Inputs:
    frame, has_names = _frame(path, kind)
    n, remarks = math.prod(shape), []
    ids = (
        [name for name in frame.columns if tables.is_id(name, frame[name])] if len(frame.columns) > n else []
    )
    features = [name for name in frame.columns if name not in ids]
    if len(features) == n + 1:
        labels = [name for name in features if str(name).strip().lower() in tables.LABELS]
        if len(labels) == 1:
            features.remove(labels[0])
            remarks.append(f"the column {labels[0]} is left out, as it has the labels")
    if len(features) != n:
        raise DataError(
            f"{path} has {count(len(features), 'column')} of features, but the network was trained on {n}",
            "provide the same columns as in training, without the labels",
        )
    x = tables.numbers(frame[features], str(path), path, has_names).reshape(-1, *shape)
    ids_by_name = {str(name): frame[name].tolist() for name in ids[:1]}
    return Inputs(path, x, [f"{path}:{row}" for row in range(1, len(x) + 1)], ids_by_name, tuple(remarks))


def _frame(path: Path, kind: str) -> "tuple[pd.DataFrame, bool]":
    """Returns a table, and whether its columns have names."""
    if kind != "parquet":
        frame, dialect = text_tables.table(path, least=1)
        return frame, dialect.has_names
    import pandas as pd

    with damage.named(path):
        return pd.read_parquet(path), True


def _of_arrays(path: Path, kind: str, shape: tuple[int, ...]) -> Inputs:
    with damage.named(path):
        chosen = _features(path, arrays.READERS[kind](path))
        x = np.asanyarray(chosen.load())
    n = math.prod(shape)
    if x.shape == shape or (x.shape == (n,) and len(shape) > 1):
        x = x[None]  # a single image
    if x.ndim == 0 or x.shape[1:] not in (shape, (n,)):
        raise DataError(
            f"{chosen} of {path} has the shape {list(x.shape)}",
            f"provide [n, {', '.join(map(str, shape))}] or rows of {n} values, as in training",
        )
    remarks = (f"{chosen} is used",) if chosen.key else ()
    names = [f"{path}:{row}" for row in range(1, len(x) + 1)]
    return Inputs(path, x.reshape(-1, *shape), names, remarks=(*remarks, *chosen.remarks))


def _features(path: Path, found: list[Stored]) -> Stored:
    """Returns the array of the test images, else the only one that does not have labels."""
    by_key = [(role(each.key), each) for each in found]
    unlabelled = [(its, each) for its, each in by_key if its.kind != "y"]
    tests = [each for its, each in unlabelled if its.part == "test"]
    candidates = tests or [each for _, each in unlabelled]
    if len(candidates) == 1 and (candidates[0].key or of_file(path).kind != "y"):
        return candidates[0]
    names = ", ".join(str(each) for each in found) or "no arrays"
    raise DataError(f"{path} has {names}", "save the images alone: numpy.save('images.npy', x)")
