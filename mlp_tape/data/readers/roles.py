"""Roles of files and arrays by their names: x or y of the train, validation or test part."""

import re
from dataclasses import dataclass
from pathlib import Path

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
