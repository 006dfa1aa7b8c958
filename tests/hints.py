"""Reads the command lines in a hint, as a person does who types them."""

import re
import shlex


def alternatives(hint: str) -> list[list[str]]:
    """Returns the overrides and options of each command line that a hint proposes, which may be none."""
    begin = re.search(
        r"\b(type(?: an option of the group, such as| values, such as| for example)?|did you mean) ", hint
    )
    if begin is None:
        return []
    found: list[list[str]] = [[]]
    try:
        words = shlex.split(hint[begin.end() :])
    except ValueError:
        return []
    if words[:2] == ["python", "-c"]:
        return []
    for word in words:
        if word == "or":
            found.append([])
        elif "=" in word or word.startswith(("-", "~")):
            found[-1].append(word.removesuffix(";"))
        elif word not in ("python", "run.py"):
            break
    return [line for line in found if line]
