"""Positions and tick labels for the values of a setting: linear, logarithmic, or one position a category."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mlp_tape.system import formatting

TICKS = 10  # maximum number of values that are labelled each; of more categories, some are shown as one
LABEL = 24  # maximum number of characters of a value on an axis
WIDE = 8  # ratio of the largest to the smallest positive value from which a scale is logarithmic


@dataclass(frozen=True)
class Scale:
    """Where the values of a setting lie on an axis.

    Attributes:
        at: position of each value, 0 to 1.
        ticks: positions of the labels, in increasing order.
        labels: the labels.
        is_numeric: whether the order and the distances of the positions have a meaning.
    """

    at: NDArray[np.float64]
    ticks: list[float]
    labels: list[str]
    is_numeric: bool


def scale(values: Sequence[Any]) -> Scale:
    """Returns the scale for the values of a setting, best job first.

    Numbers have an axis, logarithmic if they are positive and wide; null, and 0 on a logarithmic axis, lie
    left of it. All other values are categories; if there are too many, those of the best jobs are labelled,
    and the others share a position.
    """
    known = distinct(values)
    numbers = [value for value in known if _is_number(value)]
    others = [value for value in known if not _is_number(value)]
    if not numbers or (others and (others != [None] or len(known) <= TICKS)):
        return _categories(values, known)
    positive = [value for value in numbers if value > 0]
    is_log = bool(positive) and min(numbers) >= 0 and is_wide(positive)
    apart = [None] * bool(others) + [0] * (is_log and min(numbers) == 0)
    on_axis = positive if is_log else numbers
    x = {value: math.log10(value) if is_log else float(value) for value in on_axis}
    low, high = min(x.values()), max(x.values())
    left = 0.14 * len(apart)

    def position(value: Any) -> float:
        if value in apart:
            return 0.14 * apart.index(value)
        where = math.log10(value) if is_log else float(value)
        return left + (1 - left) * ((where - low) / (high - low) if high > low else 0.5)

    marks = sorted(on_axis) if len(on_axis) <= TICKS else _round_numbers(min(on_axis), max(on_axis), is_log)
    ticks, labels = [position(each) for each in apart], [formatting.value(each) for each in apart]
    for value, text in zip(marks, formatting.column(marks), strict=True):
        if not ticks or position(value) - ticks[-1] >= 1 / 16:
            ticks, labels = [*ticks, position(value)], [*labels, text]
    return Scale(np.array([position(value) for value in values]), ticks, labels, True)


def is_wide(values: Sequence[float]) -> bool:
    """Returns whether different positive values need a logarithmic scale.

    Of many values, the smallest ones do not decide: a tenth of them has to be small, as is not the case for
    values that are drawn uniformly from an interval that begins at 0.
    """
    low = min(values) if len(values) <= TICKS else float(np.quantile(values, 0.1))
    return max(values) >= WIDE * low * (1 if len(values) <= TICKS else 2)


def distinct(values: Sequence[Any]) -> list[Any]:
    """Returns the values, each once; they may be lists."""
    return list({repr(value): value for value in values}.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _categories(values: Sequence[Any], known: list[Any]) -> Scale:
    kept = known if len(known) <= TICKS else known[: TICKS - 1]
    kept = sorted(kept, key=_order)
    names = [formatting.shorten(text, LABEL) for text in formatting.column(kept)]
    if len(kept) < len(known):
        names.append(f"{len(known) - len(kept)} others")
    places = {repr(value): i for i, value in enumerate(kept)}
    at = np.array([places.get(repr(value), len(kept)) for value in values], float)
    return Scale((at + 0.5) / len(names), [(i + 0.5) / len(names) for i in range(len(names))], names, False)


def _order(value: Any) -> tuple[int, Any]:
    """Returns a sort key: null, truth values, numbers, lists (short ones first), texts."""
    if value is None or isinstance(value, bool):
        return 0, -1 if value is None else int(value)
    if isinstance(value, int | float):
        return 1, value
    if isinstance(value, list):
        return 2, (len(value), [_order(each) for each in value])
    return 3, str(value)


def _round_numbers(low: float, high: float, is_log: bool) -> list[float]:
    """Returns round numbers between two values."""
    found: Sequence[float]
    if not is_log:
        whole = isinstance(low, int) and isinstance(high, int)
        found = [*MaxNLocator(nbins=6, integer=whole).tick_values(low, high)]
    else:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every, digits = -(-len(decades) // 7), (1,) if len(decades) > 3 else (1, 2, 5)
        found = [digit * 10.0**decade for decade in decades[::every] for digit in digits]
    return [float(f"{value:.12g}") for value in found if low <= value <= high]
