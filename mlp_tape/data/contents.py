"""What a source contains, before it is checked and prepared for training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]
PARTS = ("train", "validation", "test")
KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Reading:
    """Choices of the user about how a file is read; those that do not concern its format are ignored.

    Attributes:
        label: column of a table with the labels, its name or its number from 0 (-1 is the last); None to find
            it by its name, or by its values.
        image_size: height and width to which image files are resized; None if all have the same size.
        image_mode: `grey` or `color` for image files; None for color if any of them is in color.
    """

    label: str | None = None
    image_size: tuple[int, int] | None = None
    image_mode: str | None = None


@dataclass(frozen=True, eq=False)
class Contents:
    """Features and labels as a source has them.

    Attributes:
        parts: features [n, ...] and labels [n, ...] of `train` and, if the source has them, `validation` and
            `test`, of any dtype. Without `test`, some of the training rows are split off later.
        source: file or directory of the data, or of the code that creates them; None if it is unknown.
        class_names: name of each label that has one, such as {0: "T-shirt"}; labels that are names
            themselves, such as those of directories, need none.
        remarks: how the source was understood where there is more than one way, such as "the labels are the
            column digit"; a line each.
    """

    parts: Mapping[str, tuple[Array, Array]]
    source: Path | None = None
    class_names: Mapping[int, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def of_arrays(arrays: Mapping[str, Array], source: Path | None = None) -> Contents:
    """Returns contents from arrays named x_train, y_train and, if there are any, x_validation, x_test, ..."""
    parts = {
        part: (np.asanyarray(arrays[f"x_{part}"]), np.asanyarray(arrays[f"y_{part}"]))
        for part in PARTS
        if f"x_{part}" in arrays
    }
    return Contents(parts, source)
