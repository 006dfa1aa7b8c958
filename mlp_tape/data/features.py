"""Images and rows of features as people have them, converted to uint8 or float32; and their scale."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlp_tape.data import allocation
from mlp_tape.data.contents import Array
from mlp_tape.errors import DataError
from mlp_tape.tensors.scale import Scale
from mlp_tape.training import host_arrays

LARGEST = (1023, 4095, 65535)  # values of images with 10, 12 and 16 bits
LIMIT = 3.4e38  # of float32
BRIGHT = 127  # images with a larger value are taken for images of 8 bits
SMALL, LARGE = 0.05, 10.0  # a largest absolute value, after scaling, beyond which training hardly works
UNLIKE = 4  # times the largest value of the training images, beyond which others are not scaled like them


@dataclass(frozen=True)
class Range:
    """The raw values of a part.

    Attributes:
        dtype: dtype in the source.
        low: smallest value.
        high: largest value.
    """

    dtype: str
    low: float
    high: float

    def __str__(self) -> str:
        """Returns for example `uint8 from 0 to 255`."""
        return f"{self.dtype} from {self.low:g} to {self.high:g}"

    @property
    def peak(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


def examined(key: str, x: Array) -> tuple[Array, Range]:
    """Returns features as a plain array, and the range of their values.

    Args:
        key: name of the array, for messages.
        x: [n, ...], of an integer, float or bool dtype. It may be memory-mapped.

    Raises:
        DataError: the shape or the dtype is not that of images or rows, or values are missing or not finite.
    """
    if np.ma.is_masked(x):
        raise DataError(
            f"{key} is a masked array, and {int(np.ma.getmaskarray(x).sum()):,} values are masked",
            "fill them (numpy.ma.filled), or leave out these rows",
        )
    x = np.asarray(x)
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise DataError(
            f"{key} has the shape {x.shape}", "provide an array of shape [n, ...], with one row per image"
        )
    if x.dtype.kind not in "buif":  # times are among NumPy's integers
        kinds = {"m": " (times)", "M": " (times)", "U": " (text)", "S": " (text)", "O": " (Python objects)"}
        raise DataError(
            f"{key} is of dtype {x.dtype}{kinds.get(x.dtype.kind, '')}", "use integers, floats or bools"
        )
    low, high = _extremes(x)
    if not max(abs(low), abs(high)) <= LIMIT:
        raise DataError(f"{key} contains {_how_many(x)}", "use finite numbers, or leave out these rows")
    return x, Range(str(x.dtype), low, high)


def converted(parts: Mapping[str, Array], ranges: Mapping[str, Range]) -> dict[str, Array]:
    """Converts the features of all parts to uint8, if all are integers from 0 to 255 or bools, or to float32.

    Args:
        parts: features of each part, as returned by `examined`. A memory-mapped array of that dtype is not
            copied.
        ranges: range of each part.

    Raises:
        DataError: the parts differ in shape, or one has images of integers and another of floats.
    """
    for part, x in parts.items():
        train = parts["train"]
        if x.shape[1:] != train.shape[1:]:
            raise _differ("shape", part, train.shape[1:], x.shape[1:])
        if x.ndim > 2 and (x.dtype.kind == "f") != (train.dtype.kind == "f"):
            raise _differ("dtype", part, train.dtype, x.dtype)
    is_byte = all(x.dtype.kind in "bui" for x in parts.values()) and all(
        raw.low >= 0 and raw.high <= 255 for raw in ranges.values()
    )
    dtype = np.uint8 if is_byte else np.float32
    return {part: host_arrays.aligned(x, dtype) for part, x in parts.items()}


def _differ(what: str, part: str, train: object, other: object) -> DataError:
    return DataError(
        f"x_train and x_{part} differ in {what}: {train} and {other}", f"use the same {what} for both"
    )


def _extremes(x: Array) -> tuple[float, float]:
    """Returns the smallest and the largest value; NaN if there is one."""
    if not len(x):
        return 0.0, 0.0
    extremes = np.array([(chunk.min(), chunk.max()) for chunk in allocation.blocks(x)], float)
    return float(extremes[:, 0].min()), float(extremes[:, 1].max())


def _how_many(x: Array) -> str:
    """Returns how many values are not finite or too large, and where the first of them is."""
    bad, first, seen = 0, -1, 0
    for block in allocation.blocks(x):
        wrong = ~(np.abs(block.astype(float)) <= LIMIT)
        if first < 0 and wrong.any():
            first = seen + int(wrong.reshape(len(wrong), -1).any(axis=1).argmax())
        bad, seen = bad + int(wrong.sum()), seen + len(block)
    return f"NaN, infinity or values beyond float32: {bad:,} of {x.size:,} values, the first in row {first}"


def chosen_scale(x: Array, raw: Range, wish: str, of_format: float | None = None) -> Scale:
    """Returns how values are scaled in a step.

    Args:
        x: training images or rows, as returned by `converted`.
        raw: their range in the source.
        wish: the setting: `auto`, `standardize`, or a number.
        of_format: largest value that the format of a published data set allows, if it is one.
    """
    if wish == "standardize":
        return standardized(x)
    if wish != "auto":
        return Scale((float(wish),))
    if of_format:
        return Scale((of_format if x.dtype == np.uint8 else 1.0,))
    if _has_unlike_columns(x):
        return standardized(x)
    is_pixel = raw.low >= 0 and raw.high <= 255
    is_whole = raw.dtype[0] in "uib" or (
        is_pixel and not any((chunk % 1).any() for chunk in allocation.blocks(x))
    )
    if is_whole and (raw.low < 0 or (x.ndim == 2 and raw.high > 255)):
        return standardized(x)  # no pixels
    if is_whole and raw.high > 255:
        return Scale((float(min((most for most in LARGEST if raw.high <= most), default=raw.high)),))
    if is_pixel and raw.high > BRIGHT and (is_whole or x.ndim > 2):
        return Scale((255.0,))
    return Scale((max(raw.high, 1.0) if is_whole else 1.0,))


def standardized(x: Array) -> Scale:
    """Returns mean and standard deviation, of each column of rows [n, d], else of all values [n, ...].

    A column without variation is divided by 1. Both are computed in float64, in one pass over shifted values
    (Chan et al. 1983, "Algorithms for computing the sample variance", shifted data algorithm).
    """
    axis = 0 if x.ndim == 2 else None
    shift = x[:1].astype(np.float64).mean(axis=axis)
    size = len(x) if x.ndim == 2 else x.size
    first = second = np.zeros_like(shift)
    for chunk in allocation.blocks(x):
        moved = chunk.astype(np.float64) - shift
        first, second = first + moved.sum(axis=axis), second + np.square(moved).sum(axis=axis)
    mean, variance = first / size, second / size - (first / size) ** 2
    deviation = np.sqrt(np.maximum(variance, 0))
    constant = deviation <= 1e-7 * np.maximum(1e-30, np.abs(shift + mean))
    divisor = np.where(constant, 1.0, deviation)
    return Scale(*(tuple(map(float, np.atleast_1d(each))) for each in (divisor, shift + mean)))


def _has_unlike_columns(x: Array) -> bool:
    """Returns whether most columns of a table span less than a tenth of what the widest one spans."""
    if x.ndim != 2 or x.shape[1] < 2:
        return False
    low, high = (each(x, axis=0).astype(float) for each in (np.min, np.max))
    spans = (high - low)[high > low]
    return len(spans) > 1 and float(np.sort(spans)[(len(spans) - 1) // 2]) < float(spans.max()) / 10


def doubts(x: Array, ranges: Mapping[str, Range], scale: Scale) -> list[str]:
    """Returns what may be wrong with ranges and scale, with what to type; a line each.

    Args:
        x: training images or rows.
        ranges: raw range of each part.
        scale: how they are scaled.
    """
    train, found = ranges["train"], []
    if train.low == train.high:
        return [f"all values of x_train are {train.low:g}: there is nothing to learn"]
    if not scale.offset:
        peak = train.peak / scale.divisor[0]
        if peak < SMALL:
            found.append(
                f"after scaling, the largest value of x_train is {peak:.6g}, as of pixels that are divided "
                f"twice: type dataset.scale={train.peak:.6g}, or dataset.scale=auto"
                if scale != Scale()
                else f"the largest value of x_train is {peak:.6g}, as of pixels that are divided twice: "
                f"type dataset.scale={train.peak:.6g}"
            )
        elif peak > LARGE:
            found.append(
                f"after scaling, values of x_train go up to {peak:g}, with which training hardly works: "
                "type dataset.scale=standardize"
            )
        elif _has_unlike_columns(x):
            found.append(
                "the columns of x_train differ by orders of magnitude: type dataset.scale=standardize"
            )
    for part, raw in ranges.items():
        if part != "train" and (raw.peak > UNLIKE * train.peak or raw.peak < train.peak / UNLIKE):
            found.append(
                f"x_{part} ({raw}) has another range than x_train ({train}), and is scaled like it: "
                "scale both alike in the file"
            )
    return found


def rows_found_again(x: Array, others: Array) -> int:
    """Returns how many of the images `others` are also among the images x."""
    known = _hashes(x)
    return int(np.isin(_hashes(others), known).sum())


def _hashes(x: Array) -> NDArray[np.int64]:
    return np.fromiter((hash(row.tobytes()) for row in x), np.int64, len(x))
