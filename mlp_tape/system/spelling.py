"""The most similar of several names, to correct a misspelt one."""

import difflib
from collections.abc import Iterable


def plain(name: str) -> str:
    """Returns a name without differences that are no misspelling: of case, and `-` for `_`."""
    return name.lower().replace("-", "_")


def distance(a: str, b: str) -> int:
    """Returns the number of letters left out, added, replaced or swapped with the next one.

    Source: the restricted Damerau-Levenshtein (optimal string alignment) distance.
    """
    before, above = list[int](), list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row = [i]
        for j, y in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[j] = min(row[j], before[j - 2] + 1)
        before, above = above, row
    return above[-1]


def difference(typed: str, name: str) -> int | None:
    """Returns the distance of what was typed from a name; None if they are not similar."""
    letters = distance(plain(typed), plain(name))
    return letters if letters <= max(1, min(3, len(name) // 3)) else None


def closest(typed: str, names: Iterable[str]) -> list[str]:
    """Returns the most similar names: one, several that are equally similar, or none."""
    every = list(names)
    apart = {name: letters for name in every if (letters := difference(typed, name)) is not None}
    if apart:
        return [name for name, letters in apart.items() if letters == min(apart.values())]
    return difflib.get_close_matches(plain(typed), every, n=1)
