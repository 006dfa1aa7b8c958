"""Which tables belong together: parts of a data set, or features and labels in files of their own."""

import re
from collections.abc import Iterable
from pathlib import Path

from mlp_tape.data.readers.roles import by_part, of_file
from mlp_tape.errors import DataError

Tables = dict[str, tuple[Path, Path | None]]  # by part: the table, and that of its labels if it has none
LETTER = re.compile(r"(?i)([xy])(?=[^a-z]|train|val|test|dev)")  # of X_train.csv or y.csv


def beside(path: Path) -> Tables:
    """Returns the tables to which one belongs: `a_train.csv` and `a_test.csv`, or `X.csv` and `y.csv`."""
    role, letter = of_file(path), _letter(path)

    def belongs(other: Path) -> bool:
        found = of_file(other)
        is_similar = other.suffix == path.suffix and (found.rest, bool(_letter(other))) == (
            role.rest,
            bool(letter),
        )
        is_another = (found.part, _letter(other)) != (role.part, letter)
        return is_similar and is_another and (found.part is None) == (role.part is None) and other.is_file()

    if role.part is None and not letter:
        return {"train": (path, None)}
    others = sorted(filter(belongs, path.parent.iterdir()))
    is_alone = role.part != "train" and all(of_file(other).part != "train" for other in others)
    return {"train": (path, None)} if is_alone and role.part else in_directory([path, *others], path.parent)


def in_directory(files: Iterable[Path], directory: Path) -> Tables:
    """Returns the tables of each part.

    Raises:
        DataError: there is more than one data set, or none to train on.
    """
    tables: Tables = {}
    for part, paths in by_part(files, directory).items():
        by_letter = {letter: [path for path in paths if _letter(path) == letter] for letter in "xy"}
        if len(by_letter["x"]) == len(by_letter["y"]) == 1:
            tables[part] = by_letter["x"][0], by_letter["y"][0]
        elif len(paths) == 1:
            tables[part] = paths[0], None
        else:
            raise DataError(
                f"{directory} has {len(paths)} tables that may be the {part} part: "
                f"{', '.join(path.name for path in paths[:6])}{', ...' if len(paths) > 6 else ''}",
                f"set dataset.path={paths[0]}, or to another one of them",
            )
    return tables


def _letter(path: Path) -> str:
    """Returns `x` or `y` if the name of a file begins with it alone."""
    found = LETTER.match(path.name)
    return found[1].lower() if found else ""
