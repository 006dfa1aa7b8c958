"""What a setting may be: dataclass fields that carry their range in words and as a test."""

import math
import re
from collections.abc import Callable
from dataclasses import field
from typing import Any

Check = Callable[[Any], bool]
OWN = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+"  # a person's own function


def setting(default: Any, expected: str, check: Check) -> Any:
    """A dataclass field with its range in words and as a test."""
    rule: dict[str, Any] = {"expected": expected, "check": check}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=rule)
    return field(default=default, metadata=rule)


def one_of(*names: str) -> Any:
    """One of some names; the first by default."""
    return setting(names[0], f"one of: {', '.join(names)}", names.__contains__)


def function(*names: str) -> Any:
    """One of the program's functions, or a person's own by `module.name`; the first by default."""
    return setting(
        names[0],
        f"one of: {', '.join(names)}; or a function of your own, such as module.name",
        lambda name: name in names or re.fullmatch(OWN, name) is not None,
    )


def share(default: float | None) -> Any:
    """A number from 0 to below 1; or null, if that is the default, as in what follows."""
    return _or_null(default, "a number from 0 to below 1", lambda v: 0 <= v < 1)


def not_negative(default: float | None, high: float = math.inf) -> Any:
    """A number from 0 on, to an end where there is one."""
    until = "a finite number" if high == math.inf else f"a number up to {high:g}"
    return _or_null(default, f"{until}, not below 0", lambda v: 0 <= v <= high and math.isfinite(v))


def positive(default: float | None, high: float = math.inf) -> Any:
    """A finite number above 0, and below an end where there is one."""
    text = "a finite number above 0" if high == math.inf else f"a number above 0 and below {high:g}"
    return _or_null(default, text, lambda v: 0 < v < high and math.isfinite(v))


def whole(default: int | None, low: int, high: int) -> Any:
    """A whole number within a range, its ends included."""
    return _or_null(default, f"a whole number from {low:,} to {high:,}", lambda v: low <= v <= high)


def free(default: Any, expected: str) -> Any:
    """Any value of its type."""
    return setting(default, expected, lambda value: True)


def _or_null(default: Any, expected: str, check: Check) -> Any:
    if default is not None:
        return setting(default, expected, check)
    return setting(None, f"{expected}, or null", lambda v: v is None or check(v))
