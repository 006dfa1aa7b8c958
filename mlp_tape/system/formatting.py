"""Formatting of counts and of values of settings for people: on the console, in tables, names and plots."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DIGITS = 6  # significant digits of a float, unless more are needed to tell two values apart
FLOAT = re.compile(r"(?<![\w.+-])[+-]?(\d+\.\d*|\d*\.\d+|\d+(?=e))(e[+-]?\d+)?(?![\w.])")
NAME = 80  # maximum number of characters of the name of a run or a sweep


def count(n: int, noun: str) -> str:
    """Formats a number of things: `1 job`, `0 jobs`, `1,200 rows`, `2 classes`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


def are(n: int) -> str:
    """Returns the form of `are` that agrees with a number of things."""
    return "is" if n == 1 else "are"


def value(setting: Any, digits: int = DIGITS) -> str:
    """Formats the value of a setting, with at most `digits` significant digits; all of them from 17."""
    if setting is None or isinstance(setting, bool):
        return {None: "null", True: "true", False: "false"}[setting]
    if isinstance(setting, float):
        return f"{setting:.{digits}g}" if digits < 17 else repr(setting)
    if isinstance(setting, list):
        return f"[{','.join(value(each, digits) for each in setting)}]"
    return str(setting)


def column(settings: Sequence[Any]) -> list[str]:
    """Formats the values of a setting in several runs, such that different values differ as text."""
    texts = [value(each) for each in settings]
    for digits in (9, 12, 15, 17):
        meanings: dict[str, set[Any]] = {}
        for text, each in zip(texts, settings, strict=True):
            meanings.setdefault(text, set()).add(_exact(each))
        texts = [
            value(each, digits) if len(meanings[text]) > 1 else text
            for text, each in zip(texts, settings, strict=True)
        ]
    return texts


def _exact(setting: Any) -> Any:
    """Returns what is equal for equal values only; 1 and 1.0 are equal."""
    return float(setting) if type(setting) in (int, float) else repr(setting)


def numbers(text: str) -> str:
    """Formats the floats in a list of values as it was typed, such as `1e-2,0.5`."""
    texts = [each[0] for each in FLOAT.finditer(text)]
    formatted = iter(column([float(each) for each in texts]))
    return FLOAT.sub(lambda _: next(formatted), text)


def name(words: Iterable[str], settings: Mapping[str, Any]) -> str:
    """Returns the name of a run: its overrides, with numbers as `value` formats them.

    Args:
        words: overrides such as `lr=1e-2`, without passwords.
        settings: all settings of the run, by dotted key; an option of a group, such as `optimizer=adam`, is
            not among them and remains as typed.
    """
    formatted = []
    for word in words:
        key = word.lstrip("+").partition("=")[0]
        known = settings.get(key, "")
        formatted.append(word if isinstance(known, str) else f"{key}={value(known)}")
    if len(" ".join(formatted)) > NAME:
        formatted = _without_groups(formatted)
    return shorten(" ".join(formatted), NAME)


def _without_groups(words: list[str]) -> list[str]:
    """Shortens keys such as `model.init` to `init`, if they remain different."""
    short = [re.sub(r"^[^=]*[./](?=\w+=)", "", word) for word in words]
    seen = Counter(word.partition("=")[0] for word in short)
    return [s if seen[s.partition("=")[0]] == 1 else word for s, word in zip(short, words, strict=True)]


def shorten(text: str, most: int) -> str:
    """Omits words from the middle of a text of more than `most` characters, or characters of long words."""
    if len(text) <= most:
        return text
    words = [word for word in text.split(" ") if word != "..."]
    while len(words) > 2 and len(" ".join(words)) + len(" ...") > most:
        del words[len(words) // 2]
    middle = (len(words) + 1) // 2
    shorter = " ".join([*words[:middle], "...", *words[middle:]])
    if len(words) > 1 and len(shorter) <= most:
        return shorter
    tail = (most - len("...")) // 2
    return f"{text[: most - len('...') - tail]}...{text[-tail:]}"
