"""Roles of files and arrays by their names: x or y of the train, validation or test part."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlp_tape.errors import DataError

PARTS = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "tst", "t10k"),
}
KINDS = {
    "x": ("x", "images", "image", "imgs", "img", "data", "features", "inputs", "pixels"),
    "y": ("y", "labels", "label", "targets", "target", "classes", "class"),
}
IGNORED = {"dataset", "set", "idx1", "idx2", "idx3", "idx4", "ubyte", "arr", "0"}
PART_OF = {word: part for part, words in PARTS.items() for word in words}
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}
JOINED = {
    joined: (part, kind)
    for part_word, part in PART_OF.items()
    for kind_word, kind in KIND_OF.items()
    for joined in (part_word + kind_word, kind_word + part_word)
}


@dataclass(frozen=True)
class Role:
    """What a name says.

    Attributes:
        part: `train`, `validation` or `test`; None if the name does not say it.
        kind: `x` or `y`, or None.
        rest: all other words, which are the same for the files of a data set, such as `emnist-letters`.
    """

    part: str | None
    kind: str | None
    rest: str


def role(name: str) -> Role:
    """Returns the role of a name such as `x_train`, `trainX` or `emnist-letters-test-labels-idx1-ubyte`."""
    words = re.split(
        r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    )
    part, kind, rest = None, None, []
    for word in words:
        if word in JOINED:
            part, kind = JOINED[word]
        elif word in PART_OF:
            part = PART_OF[word]
        elif word in KIND_OF:
            kind = KIND_OF[word]
        elif word and word not in IGNORED:
            rest.append(word)
    return Role(part, kind, "-".join(rest))


def of_file(path: Path) -> Role:
    """Returns the role of a file by its name without `.gz` and the suffix."""
    return role(Path(path.name.removesuffix(".gz")).stem)


def by_part(files: Iterable[Path], directory: Path) -> dict[str, list[Path]]:
    """Groups files by the part in their names or those of their directories.

    If no file has one, all are of the train part; otherwise, those without one are left out.

    Raises:
        DataError: there are files of other parts, but none to train on.
    """
    groups: dict[str | None, list[Path]] = {}
    for file in files:
        names = [directory / name for name in reversed(file.relative_to(directory).parts)]
        part = next((found for name in names if (found := of_file(name).part)), None)
        groups.setdefault(part, []).append(file)
    named = {part: groups[part] for part in PARTS if part in groups} or {"train": groups[None]}
    if "train" not in named:
        raise DataError(
            f"{directory} has a {next(iter(named))} part, but none to train on",
            "set dataset.path to the file with the training data",
        )
    return named


def shards(path: Path) -> dict[str, list[Path]]:
    """Returns the files of all parts to which one belongs, such as `train-00000-of-00002.parquet`."""

    def words(file: Path) -> list[str]:
        return [word for word in of_file(file).rest.split("-") if not word.isdigit() and word != "of"]

    def belongs(file: Path) -> bool:
        is_similar = file.suffix == path.suffix and words(file) == words(path)
        return is_similar and of_file(file).part is not None and file.is_file()

    if of_file(path).part is None:
        return {"train": [path]}
    return by_part(sorted(filter(belongs, path.parent.iterdir())), path.parent)
