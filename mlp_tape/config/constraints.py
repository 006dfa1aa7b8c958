"""Constraints on settings: dataclass fields with a default, a range and a help text.

They are plain dataclass fields and not a pydantic model, although MLflow installs pydantic: the range as it
appears in an error message, and the proposed correction, would have to be written in addition to pydantic's
constraints, and pydantic's own errors translated. Import time is not the reason; it is a fiftieth of
TensorFlow's.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, field
from typing import Any

Check = Callable[[Any], bool]
ByOption = Mapping[str, Any]  # default value with each option of the group that uses the setting
FUNCTION = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+"  # a user's function


def setting(
    default: Any, help: str, expected: str, check: Check = lambda value: True, **metadata: Any
) -> Any:
    """Returns a dataclass field with a range and a help text.

    Args:
        default: default value; if it is None, null is valid too. If only some options of the group use the
            setting: a dictionary from each of these to its default; with the others, the setting is null.
            An empty dictionary is the default of a setting that is a dictionary itself.
        help: what the setting means, for the settings reference.
        expected: the valid values, for error messages.
        check: function that returns whether a value of the right type is valid.
        metadata: further metadata of the field.
    """
    by_option = default if default and isinstance(default, Mapping) else None
    if by_option is not None or default is None:
        default, checked = None, check
        check = lambda value: value is None or checked(value)  # noqa: E731
        expected = expected if by_option else f"{expected}, or null"
    metadata |= {"help": help, "expected": expected, "check": check, "by_option": by_option}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def default_of(rule: Field[Any]) -> Any:
    """Returns the default value of a field."""
    return rule.default if rule.default_factory is MISSING else rule.default_factory()


def group(kind: type, option: str | None = None) -> Any:
    """Returns a field for a group of settings.

    Args:
        kind: dataclass of the group.
        option: name of the group's only option. If None, the group has the options that its setting `name`
            accepts, or, without such a setting, no options.
    """
    return field(default_factory=kind, metadata={"option": option})


def one_of(names: Iterable[str], help: str, *, function: bool = False) -> Any:
    """Accepts one of the names; the first is the default.

    Args:
        names: the names; a dictionary maps each name to its help text.
        help: what the setting means.
        function: whether a user's function is accepted too, as `module.name`.
    """
    known = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, "")
    expected = f"one of: {', '.join(known)}"
    return setting(
        next(iter(known)),
        help,
        f"{expected}; or your own function, such as module.name" if function else expected,
        lambda name: name in known or (function and re.fullmatch(FUNCTION, name) is not None),
        names=known,
    )


def flag(default: bool, help: str, *, environment: str | None = None) -> Any:
    """Accepts true or false.

    Args:
        default: default value.
        help: what the setting means.
        environment: environment variable whose value is the default on the command line, if it is set.
    """
    return setting(default, help, "true or false", environment=environment)


def fraction(default: float | ByOption | None, help: str) -> Any:
    """Accepts a number in [0, 1)."""
    return setting(default, help, "a number from 0 to below 1", lambda v: 0 <= v < 1)


def not_negative(default: float | ByOption | None, help: str, *, up_to: float = math.inf) -> Any:
    """Accepts a finite number in [0, up_to]."""
    numbers = "a finite number" if up_to == math.inf else f"a number up to {up_to:g}"
    return setting(default, help, f"{numbers}, not below 0", lambda v: 0 <= v <= up_to and math.isfinite(v))


def positive(default: float | ByOption | None, help: str, *, below: float = math.inf) -> Any:
    """Accepts a finite number in (0, below)."""
    text = "a finite number above 0" if below == math.inf else f"a number above 0 and below {below:g}"
    return setting(default, help, text, lambda v: 0 < v < below and math.isfinite(v))


def integer(default: int | ByOption | None, help: str, low: int, high: int) -> Any:
    """Accepts an integer in [low, high]."""
    return setting(default, help, f"an integer from {low:,} to {high:,}", lambda v: low <= v <= high)
