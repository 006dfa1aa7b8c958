"""Data sets as validated NumPy arrays."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlp_tape.config.settings import is_own
from mlp_tape.data import contents, features, labels, sources, splits, user_data
from mlp_tape.data.contents import Array, Contents, Reading
from mlp_tape.data.features import Range
from mlp_tape.data.labels import Label
from mlp_tape.data.readers import any_format
from mlp_tape.data.sources import Say
from mlp_tape.errors import DataError
from mlp_tape.system import timeline
from mlp_tape.system.formatting import count
from mlp_tape.tensors.scale import Scale

OWN = "arrays"  # name of the user's own data
# SHA-256 of the published data sets, as in `Dataset.sha256`, and the largest value of their format.
PUBLISHED = {
    "47aa2e4791efb3ec48957c31d25bd196ce4d88563315302665f8e66ad6494329": "mnist",
    "30a7e9b8067552e316c3f3c5da3f33545038f211f43f85640a8b79baaf9c87cb": "mnist_5k",
    "23b2c43525cdfca1ed661f474faa82bc343193d95852963b151722c43a587455": "digits",
}
LARGEST = {"mnist": 255.0, "mnist_5k": 255.0, "fashion_mnist": 255.0, "digits": 16.0}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Validated arrays for training and test.

    Attributes:
        name: name of the data set if it is a published one, also if it was loaded by its path; `mnist_5k` if
            it replaced `mnist`, which was not available; `module.function`; or `arrays`.
        x_train: images or rows of features, uint8 or float32 [n, ...].
        y_train: class numbers, int32 [n], from 0 to n_classes - 1.
        x_test: like x_train, [m, ...].
        y_test: like y_train, [m].
        classes: label of each class as the source has it; by default its number.
        class_names: name of each class, for people.
        scale: how the values of x are scaled in a step.
        ranges: raw range of each part, as the source has it.
        sha256: SHA-256 of the names, dtypes, shapes and bytes of all arrays before any images are held out
            for validation, and of labels other than class numbers from 0.
        warning: warning about the data to show to the user; may be empty.
        source: absolute path of the file or directory of the data, or of the code that creates them; empty if
            it is unknown.
        remarks: how the source was understood where there is more than one way, a line each.
        doubts: what may be wrong with the data, with what to type where there is a remedy, a line each.
        x_validation: images for model selection, of the source or held out from x_train, [k, ...]; may be
            empty.
        y_validation: like y_train, [k].
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: tuple[Label, ...]
    scale: Scale
    sha256: str
    ranges: Mapping[str, Range] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    warning: str = ""
    source: str = ""
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    x_validation: Array = field(default_factory=lambda: np.empty(0, np.uint8))
    y_validation: Array = field(default_factory=lambda: np.empty(0, np.int32))

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def is_own(self) -> bool:
        """Whether it is the user's own data, and not one of the named data sets."""
        return is_own(self.name)

    @property
    def images(self) -> tuple[Array, Array, Array]:
        """The images of all splits: train, test, validation."""
        return self.x_train, self.x_test, self.x_validation

    @functools.cached_property
    def span(self) -> tuple[float, float]:
        """The minimum and maximum of x_train, after scaling."""
        divisor, offset = (
            np.array(each, np.float32) for each in (self.scale.divisor, self.scale.offset or 0)
        )
        if len(self.scale.divisor) > 1:
            columns = (
                (self.x_train.min(axis=0) - offset) / divisor,
                (self.x_train.max(axis=0) - offset) / divisor,
            )
            return float(columns[0].min()), float(columns[1].max())
        low, high = ((np.float32(each()) - offset) / divisor for each in (self.x_train.min, self.x_train.max))
        return float(low.item()), float(high.item())

    @property
    def n_features(self) -> int:
        """The number of values in one image."""
        return int(np.prod(self.x_train.shape[1:]))

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches of the training images, including the smaller last one."""
        return math.ceil(len(self.x_train) / batch_size)

    def layer_sizes(self, hidden_sizes: list[int]) -> list[int]:
        """Returns the width of each layer, from the number of features to the number of classes."""
        return [self.n_features, *hidden_sizes, self.n_classes]


@timeline.phase("data")
def load(
    name: str,
    path: str | None = None,
    offline: str | None = "subset",
    label: str | None = None,
    image_size: list[int] | None = None,
    image_mode: str | None = None,
    scale: str = "auto",
    test_fraction: float = 0.2,
    split_seed: int = 0,
    say: Say = print,
) -> Dataset:
    """Loads a data set.

    Args:
        name: mnist, mnist_5k, digits, fashion_mnist, arrays, or `module.function`: see `user_data.read`.
        path: file or directory to read instead, or the argument of the function. The data set then has the
            name of the published one that it contains, else `arrays`.
        offline: what to do if mnist is not available: `subset` loads the 5,000 images of mnist_5k, `error`
            raises an error.
        label: as in `Reading`, like the next two.
        image_size: height and width.
        image_mode: grey or color.
        scale: as in `prepared`, like the next two.
        test_fraction: fraction of each class that is split off if the data have no test part.
        split_seed: seed of that split.
        say: called with a message before a download.

    Raises:
        DataError: the data are not available, or not suitable for training.
        ConfigError: the function `name` cannot be imported, or does not accept a path.
    """
    prepare = functools.partial(prepared, scale=scale, test_fraction=test_fraction, split_seed=split_seed)
    if "." in name:
        return prepare(user_data.read(name, path), name)
    if path is not None:
        size = (image_size[0], image_size[1]) if image_size else None
        return prepare(any_format.read(Path(path), Reading(label, size, image_mode)), OWN)
    if name == OWN:
        raise DataError("dataset=arrays needs a file", "type dataset=arrays dataset.path=FILE")
    warning = ""
    try:
        arrays, source = sources.load(name, say)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, a checksum's a ValueError
        reason = f"{name} is not in the cache, and its download failed ({type(error).__name__})"
        hint = sources.hint(name)
        if name != "mnist" or offline == "error":
            raise DataError(reason, hint) from error
        instead = "Training on the 5,000 MNIST images of mnist_5k instead"
        warning = f"{reason}.\n{instead}.\nFor all 70,000: {hint}."
        name, (arrays, source) = "mnist_5k", sources.load("mnist_5k", say)
    found = contents.of_arrays(arrays, source)
    found = dataclasses.replace(found, class_names=sources.CLASS_NAMES.get(name, {}))
    return dataclasses.replace(prepare(found, name), warning=warning)


def prepared(
    found: Contents, name: str = OWN, scale: str = "auto", test_fraction: float = 0.2, split_seed: int = 0
) -> Dataset:
    """Checks what a source contains, and prepares it for training.

    Args:
        found: features and labels of each part.
        name: name of the data set; `arrays` becomes the name of the published one if they are equal.
        scale: `auto`, `standardize`, or a number above 0: see `features.chosen_scale`.
        test_fraction: fraction of each class that is split off if there is no test part.
        split_seed: seed of that split.

    Raises:
        DataError: shapes, dtypes, values or labels are not suitable for training.
    """
    known = labels.understood({part: y for part, (_, y) in found.parts.items()})
    plain, ranges = {}, {}
    for part, (x, _) in found.parts.items():
        plain[part], ranges[part] = features.examined(f"x_{part}", x)
        _check_rows(part, plain[part], known.numbers[part])
    pairs = {part: (x, known.numbers[part]) for part, x in features.converted(plain, ranges).items()}
    remarks, doubts = list[str](), list[str]()
    if "test" not in pairs:
        kept, chosen = splits.stratified(pairs["train"][1], test_fraction, split_seed)
        pairs["test"], pairs["train"] = (splits.taken(pairs["train"], rows) for rows in (chosen, kept))
        ranges["test"] = ranges["train"]
        remarks.append(
            f"there is no test part: {count(len(chosen), 'row')} are split off "
            f"(dataset.test_fraction={test_fraction:g})"
        )
    sha256 = _sha256(pairs, known.classes)
    name = _published(sha256, found.source) or name if name == OWN else name
    images = {part: pair[0] for part, pair in pairs.items()}
    train = images["train"]
    how = features.chosen_scale(train, ranges["train"], scale, LARGEST.get(name))
    if name not in LARGEST:
        doubts = [*features.doubts(train, ranges, how), *known.doubts, *_leaks(images)]
    empty = train[:0], known.numbers["train"][:0]
    return Dataset(
        name,
        *pairs["train"],
        *pairs["test"],
        known.classes,
        how,
        sha256,
        ranges,
        _class_names(known.classes, found.class_names),
        source=str(found.source.absolute()) if found.source else "",
        remarks=(*found.remarks, *known.remarks, *remarks),
        doubts=tuple(doubts),
        x_validation=pairs.get("validation", empty)[0],
        y_validation=pairs.get("validation", empty)[1],
    )


@functools.lru_cache(maxsize=2)  # shared by the jobs of a sweep
def with_validation(dataset: Dataset, fraction: float | None, seed: int = 0) -> Dataset:
    """Holds out some training images for model selection; the test images have no influence on the choice.

    Args:
        dataset: data set.
        fraction: fraction of the training images to hold out, in [0, 1); above 0, at least one image. None
            holds out none.
        seed: determines which images.

    Raises:
        DataError: no image would be left to train on, or the data set has validation images of its own.
    """
    if not fraction:
        return dataset
    check_fraction(dataset, fraction)
    train = dataset.x_train, dataset.y_train
    kept, chosen = splits.held_out(len(dataset.x_train), fraction, seed)
    (x, y), (x_validation, y_validation) = splits.taken(train, kept), splits.taken(train, chosen)
    return dataclasses.replace(
        dataset, x_train=x, y_train=y, x_validation=x_validation, y_validation=y_validation
    )


def check_fraction(dataset: Dataset, fraction: float) -> None:
    """Raises DataError if `with_validation` would, for a fraction above 0."""
    if len(dataset.y_validation):
        raise DataError(
            f"validation_fraction={fraction:g}, but the data have a validation part of "
            f"{count(len(dataset.y_validation), 'image')}",
            "leave out validation_fraction; the validation part is used",
        )
    splits.number_held_out(len(dataset.x_train), fraction)


def _check_rows(part: str, x: Array, y: Array) -> None:
    if len(x) != len(y) or len(y) == 0:
        raise DataError(
            f"x_{part} has {count(len(x), 'row')} and y_{part} {len(y)}",
            "provide one label for each image, and at least one image",
        )


def _published(sha256: str, source: Path | None) -> str | None:
    """Returns the name of the published data set that has a SHA-256; None if there is none."""
    is_fashion = source is not None and source.is_dir() and sources.is_fashion_mnist(source)
    return "fashion_mnist" if is_fashion else PUBLISHED.get(sha256)


def _class_names(classes: tuple[Label, ...], names: Mapping[Any, str]) -> tuple[str, ...]:
    return tuple(str(names.get(label, label)) for label in classes)


def _leaks(x: Mapping[str, Array]) -> list[str]:
    """Returns how many images of the other parts are also among the training images, a line each."""
    found = {part: features.rows_found_again(x["train"], x[part]) for part in x if part != "train"}
    return [
        f"{n:,} of {count(len(x[part]), 'row')} of x_{part} are also in x_train: "
        f"results on them do not show what the network does with new data"
        for part, n in found.items()
        if n
    ]


def _sha256(pairs: Mapping[str, tuple[Array, Array]], classes: tuple[Label, ...]) -> str:
    digest = hashlib.sha256()
    if not labels.are_numbers(classes):
        digest.update(repr(classes).encode())
    for part in sorted(pairs, key=("train", "test", "validation").index):
        for kind, array in zip("xy", pairs[part], strict=True):
            digest.update(f"{kind}_{part} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
