"""Settings that are a path or another text: what was typed is quoted for Hydra where it has to be.

Hydra's grammar gives a meaning to brackets, braces, quotes, `=` and commas, and does not accept umlauts or
`#` outside of quotes. In the value of such a setting, they are part of the text.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from mlp_tape.config.settings import PATHS, TEXTS, format_value, is_description
from mlp_tape.config.validation import with_home

OF_HYDRA = ("hydra.run.dir", "hydra.sweep.dir", "hydra.job.name")
PIECE = re.compile(r"""(?:^|,)('(?:\\.|[^'\\])*'(?=,|$)|"(?:\\.|[^"\\])*"(?=,|$)|[^,]*)""")
QUOTED = re.compile(r"""'.*'|".*\"""", re.DOTALL)
FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag|str|int|float|bool)\(.*\)", re.DOTALL)


def literal(text: str) -> str:
    """Returns any text as a quoted value in Hydra's override grammar, in which nothing is interpolated.

    A backslash has to be doubled only before a quotation mark, an interpolation, and the end.
    """
    after = {"'": "\\'", "${": "\\${", "": ""}
    return "'" + re.sub(r"(\\*)('|\$\{|\Z)", lambda found: found[1] * 2 + after[found[2]], text) + "'"


def as_typed(overrides: Sequence[str], is_sweep: bool) -> list[str]:
    """Returns overrides in which the values of texts are quoted, so that Hydra takes them as typed.

    Args:
        overrides: overrides as typed.
        is_sweep: whether commas separate the values of a setting; in a text that describes all jobs, they do
            not.
    """
    return [_as_typed(text, is_sweep) for text in overrides]


def _as_typed(override: str, is_sweep: bool) -> str:
    name, sign, value = override.partition("=")
    key = name.lstrip("+")
    if not sign or not (key in TEXTS or key in OF_HYDRA or key.startswith("tags.")):
        return override
    is_path = key in PATHS or key in OF_HYDRA
    if FUNCTION.fullmatch(value) and not is_description(key) and _parsed(value) and not _exists(value):
        return override
    pieces = [value] if not is_sweep or is_description(key) else _values(value)
    return f"{name}={','.join(_quoted(each, is_path, is_description(key)) for each in pieces)}"


def _values(text: str) -> list[str]:
    """Returns the values of a sweep; one that contains commas is quoted, or a file of that name exists."""
    left, found = [piece[1] for piece in PIECE.finditer(text)], list[str]()
    if all(map(_exists, left)):
        return left
    while left:
        joined = (n for n in range(len(left), 1, -1) if _exists(",".join(left[:n])))
        n = next(joined, 1)
        found.append(",".join(left[:n]))
        left = left[n:]
    return found


def _quoted(text: str, is_path: bool, is_description: bool) -> str:
    """Returns a value for Hydra: as it is if that means the same to Hydra, else quoted."""
    text = with_home(text) if is_path else text
    override = _parsed(text)
    value = override.value() if override else None
    if value == text and "${" not in text:
        return text
    if is_path and _exists(text):
        return literal(text)
    has_meaning = text in ("", "null") or "${" in text or QUOTED.fullmatch(text)
    if has_meaning or value == text.strip() or _is_number(value, text):
        return text
    if override is not None and isinstance(value, str) and "\\" in text:  # escaped for Hydra
        return text
    if override is not None and override.is_sweep_override() and not is_description:
        return text  # in a run, it is reported as ambiguous
    return literal(text)


def _is_number(value: Any, text: str) -> bool:
    """Returns whether a value is a number whose text is that which was typed."""
    return isinstance(value, int | float) and not isinstance(value, bool) and format_value(value) == text


def _parsed(text: str) -> Override | None:
    """Returns a value as Hydra parses it; None if it cannot."""
    try:
        return OverridesParser.create().parse_override(f"key={text}")
    except HydraException:
        return None


def value(override: str) -> Any:
    """Returns the value of an override that Hydra accepts, else what follows the equals sign."""
    typed = override.partition("=")[2]
    parsed = _parsed(typed)
    return typed if parsed is None else parsed.value()


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(with_home(text)).exists()
    except (OSError, ValueError):  # such as a name that is too long, or contains a null character
        return False
