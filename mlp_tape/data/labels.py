"""Labels as people have them, converted to class numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlp_tape.data.contents import Array
from mlp_tape.errors import DataError
from mlp_tape.system.formatting import count

MOST_CLASSES = 10_000
VOID = 255  # marks pixels and images without a class in several published data sets
Label = int | str | bool


@dataclass(frozen=True, eq=False)
class Labels:
    """Class numbers, and the labels that they stand for.

    Attributes:
        numbers: class numbers of each part, int32 [n], from 0 to the number of classes - 1.
        classes: label of each class as the source has it.
        remarks: how labels that are not class numbers from 0 were understood, a line each.
        doubts: what may be wrong with them, a line each.
    """

    numbers: Mapping[str, NDArray[np.int32]]
    classes: tuple[Label, ...]
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def understood(parts: Mapping[str, Array]) -> Labels:
    """Converts labels to class numbers.

    Accepted are integers, whole floats, bools and strings of shape [n] or [n, 1], and one-hot rows [n, k].
    The classes are the distinct labels in ascending order.

    Args:
        parts: labels of each part, as the source has them.

    Raises:
        DataError: labels are missing or not classes, or there are less than 2 or more than 10,000 classes.
    """
    found = {part: _values(f"y_{part}", y) for part, y in parts.items()}
    kinds = {part: values.dtype.kind for part, values in found.items()}
    if len(set(kinds.values())) > 1:
        names = {"i": "integers", "b": "bools", "U": "strings"}
        listed = ", ".join(f"those of y_{part} are {names[kind]}" for part, kind in kinds.items())
        raise DataError(f"the labels differ in kind: {listed}", "use the same labels for all parts")
    distinct = np.unique(np.concatenate([np.unique(values) for values in found.values()]))
    if len(distinct) < 2:
        which = (
            f"all {count(sum(map(len, found.values())), 'label')} are {distinct[0]}" if len(distinct) else ""
        )
        raise DataError(which or "there are no labels", "provide rows of at least 2 classes")
    if len(distinct) > MOST_CLASSES:
        raise DataError(
            f"there are {len(distinct):,} different labels, from {distinct[0]} to {distinct[-1]}",
            f"a class needs several rows; use at most {MOST_CLASSES:,} classes",
        )
    numbers = {part: np.searchsorted(distinct, values).astype(np.int32) for part, values in found.items()}
    classes: tuple[Label, ...] = tuple(distinct.tolist())
    return Labels(numbers, classes, tuple(_remarks(classes)), tuple(_doubts(classes, numbers)))


def _values(key: str, y: Array) -> Array:
    """Returns labels as integers, bools or strings of shape [n]."""
    if np.ma.is_masked(y):
        raise DataError(
            f"{key} is a masked array, and {int(np.ma.getmaskarray(y).sum()):,} labels are masked",
            "leave out these rows",
        )
    y = np.asarray(y)
    if y.dtype.kind in "mM":
        raise DataError(f"{key} contains times ({y.dtype})", "use integers or strings, one for each class")
    if y.dtype.kind == "O":
        y = _of_objects(key, y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "buif":
        return _of_one_hot(key, y)
    if y.ndim != 1:
        raise DataError(
            f"{key} is of shape {y.shape}", "use one label for each row, [n], or one-hot rows [n, classes]"
        )
    if y.dtype.kind == "S":
        y = _decoded(y)
    if y.dtype.kind == "f":
        return _of_floats(key, y)
    if y.dtype.kind in "ui":
        if y.size and int(y.max()) >= 2**63:
            raise DataError(f"{key} goes up to {y.max()}", "use integers below 2**63")
        return y.astype(np.int64)
    if y.dtype.kind == "U":
        return _of_strings(key, y)
    if y.dtype.kind == "b":
        return y
    raise DataError(f"{key} is of dtype {y.dtype}", "use integers or strings, one for each class")


def _decoded(y: Array) -> Array:
    """Returns bytes as strings; Latin-1 has a character for every byte."""
    try:
        return np.char.decode(y, "utf-8")
    except UnicodeDecodeError:
        return np.char.decode(y, "latin-1")


def _of_objects(key: str, y: Array) -> Array:
    """Returns Python objects, as in a column of a table, as an array of a dtype."""
    flat = y.ravel().tolist()
    missing = sum(each is None or each != each for each in flat)  # NaN differs from itself
    if missing:
        raise DataError(
            f"{missing:,} of {count(len(flat), 'label')} of {key} are missing", "leave out these rows"
        )
    kinds = {type(each) for each in flat}
    if len(kinds) > 1 and not kinds <= {int, float, bool, np.int64, np.float64}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(f"{key} contains objects of several types: {names}", "use integers or strings")
    made = np.array(flat).reshape(y.shape) if flat else np.empty(y.shape, np.int64)
    if made.dtype.kind not in "buifSU":
        raise DataError(f"{key} contains objects ({next(iter(kinds)).__name__})", "use integers or strings")
    return made


def _of_floats(key: str, y: Array) -> Array:
    missing = int(np.isnan(y).sum())
    if missing:
        raise DataError(f"{missing:,} of {count(len(y), 'label')} of {key} are NaN", "leave out these rows")
    y = y.astype(np.float64)  # float16 has no 2**53
    whole = np.isfinite(y) & (np.abs(y) < 2**53) & (y == np.floor(y))
    if not whole.all():
        example = y[~whole][0]
        raise DataError(
            f"{key} contains {example:g}, which is no class",
            "use integers or strings; real numbers cannot be predicted, but can be divided into classes",
        )
    return y.astype(np.int64)


def _of_strings(key: str, y: Array) -> Array:
    """Returns strings, as integers if all of them are integers as they are usually written."""
    distinct = np.unique(y)
    empty = int((y == "").sum())
    if empty:
        raise DataError(f"{empty:,} of {count(len(y), 'label')} of {key} are empty", "leave out these rows")
    if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", text) for text in distinct.tolist()):
        return y.astype(np.int64)
    return y


def _of_one_hot(key: str, y: Array) -> Array:
    """Returns the place of the 1 in each row."""
    is_one_hot = bool(np.isin(y, (0, 1)).all()) and bool((y.sum(axis=1) == 1).all())
    if not is_one_hot:
        several = int((y != 0).sum(axis=1).max(initial=0))
        raise DataError(
            f"{key} is of shape {y.shape}, but its rows are not one-hot: one has {count(several, 'value')} "
            "other than 0",
            "use one label for each row, [n], or one-hot rows [n, classes]",
        )
    places: Array = y.argmax(axis=1)
    return places


def are_numbers(classes: tuple[Label, ...]) -> bool:
    """Returns whether labels are class numbers from 0 without a gap."""
    return classes == tuple(range(len(classes))) and not isinstance(classes[0], bool)


def listed(classes: tuple[Label, ...], numbers: NDArray[np.int32], most: int = 12) -> str:
    """Returns classes with the number of their rows, such as `0 (5,923), 1 (6,742)`, at most `most`."""
    rows = np.bincount(numbers, minlength=len(classes))
    texts = [f"{name} ({n:,})" for name, n in zip(classes, rows.tolist(), strict=True)]
    if len(texts) > most:
        texts = [*texts[: most - 1], "...", texts[-1]]
    return ", ".join(texts)


def _remarks(classes: tuple[Label, ...]) -> list[str]:
    if are_numbers(classes):
        return []
    what = "names" if isinstance(classes[0], str) else f"not all numbers from 0 to {len(classes) - 1}"
    return [f"the labels are {what}: each that occurs is a class"]


def _doubts(classes: tuple[Label, ...], numbers: Mapping[str, NDArray[np.int32]]) -> list[str]:
    rows = {part: np.bincount(each, minlength=len(classes)) for part, each in numbers.items()}
    every = sum(rows.values(), start=np.zeros(len(classes), np.int64))
    doubts = []
    if VOID in classes and classes[-1] == VOID and classes[-2] != VOID - 1:
        doubts.append(
            f"the label {VOID} ({count(int(every[-1]), 'row')}) often marks rows without a class; "
            "here it is a class of its own: leave out these rows if they have none"
        )
    for part, here in rows.items():
        others = {other: there for other, there in rows.items() if other != part}
        only = np.flatnonzero((here > 0) & (sum(others.values(), start=np.zeros_like(here)) == 0))
        if others and len(only) and (part != "train" or "test" in others):
            which = ", ".join(str(classes[k]) for k in only[:10].tolist()) + ", ..." * (len(only) > 10)
            what = "cannot be predicted" if part != "train" else "are never tested"
            doubts.append(
                f"{count(len(only), 'class')} ({which}; "
                f"{count(int(here[only].sum()), 'row')}) only in the {part} part: they {what}"
            )
    if int(every.sum()) < 2 * len(classes) and len(classes) > 20:
        doubts.append(
            f"there are {len(classes):,} different labels in {count(int(every.sum()), 'row')}: "
            "these may be measurements or names, and not classes"
        )
    return doubts
