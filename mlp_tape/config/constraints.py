"""Constraints on settings: dataclass fields with a check of the value and a description of it."""

import math
import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

Check = Callable[[Any], bool]
OWN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+"  # a user's function


def setting(default: Any, expected: str, check: Check) -> Any:
    """Returns a dataclass field with a check of its value.

    Args:
        default: default value.
        expected: description of the valid values, for error messages.
        check: function that returns whether a value of the right type is valid.
    """
    rule: dict[str, Any] = {"expected": expected, "check": check}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=rule)
    return field(default=default, metadata=rule)


def one_of(*names: str) -> Any:
    """Accepts one of the names; the first is the default."""
    return setting(names[0], f"one of: {', '.join(names)}", names.__contains__)


def function(*names: str) -> Any:
    """Accepts one of the names, or a user's function as `module.name`; the first name is the default."""
    return setting(
        names[0],
        f"one of: {', '.join(names)}; or your own function, such as module.name",
        lambda name: name in names or re.fullmatch(OWN, name) is not None,
    )


def share(default: float | None) -> Any:
    """Accepts a number in [0, 1), or null if that is the default."""
    return _or_null(default, "a number from 0 to below 1", lambda v: 0 <= v < 1)


def not_negative(default: float | None, high: float = math.inf) -> Any:
    """Accepts a finite number in [0, high], or null if that is the default."""
    until = "a finite number" if high == math.inf else f"a number up to {high:g}"
    return _or_null(default, f"{until}, not below 0", lambda v: 0 <= v <= high and math.isfinite(v))


def positive(default: float | None, high: float = math.inf) -> Any:
    """Accepts a finite number in (0, high), or null if that is the default."""
    text = "a finite number above 0" if high == math.inf else f"a number above 0 and below {high:g}"
    return _or_null(default, text, lambda v: 0 < v < high and math.isfinite(v))


def whole(default: int | None, low: int, high: int) -> Any:
    """Accepts an integer in [low, high], or null if that is the default."""
    return _or_null(default, f"an integer from {low:,} to {high:,}", lambda v: low <= v <= high)


def free(default: Any, expected: str) -> Any:
    """Accepts any value of the field's type."""
    return setting(default, expected, lambda value: True)


def _or_null(default: Any, expected: str, check: Check) -> Any:
    if default is not None:
        return setting(default, expected, check)
    return setting(None, f"{expected}, or null", lambda v: v is None or check(v))
