"""Data sets as validated NumPy arrays."""

import dataclasses
import functools
import hashlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlp_tape.data import readers, sources
from mlp_tape.data.contents import KEYS, Array, Arrays, Reading
from mlp_tape.data.sources import Say
from mlp_tape.errors import DataError, MlpTapeError
from mlp_tape.system import user_functions
from mlp_tape.system.atomic_files import cache_directory
from mlp_tape.system.formatting import count
from mlp_tape.training import host_arrays


@dataclass(frozen=True, eq=False)
class Dataset:
    """Validated arrays for training and test.

    Attributes:
        name: name of the loaded data set, `mnist_5k` if it replaced `mnist`, which was not available.
        x_train: images or rows of features, uint8 or float32 [n, ...].
        y_train: labels, int32 [n], from 0 to n_classes - 1.
        x_test: like x_train, [m, ...].
        y_test: like y_train, [m].
        n_classes: number of classes.
        scale: divisor of x in a step: the largest possible value of an integer image, 1 for floats.
        sha256: SHA-256 of the names, dtypes, shapes and bytes of the four arrays before any images are held
            out for validation.
        warning: warning about the data to show to the user; may be empty.
        source: absolute path of the file or directory of the data, or of the code that creates them; empty if
            it is unknown.
        x_validation: images held out from x_train for model selection, [k, ...]; may be empty.
        y_validation: like y_train, [k].
    """

    name: str
    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    n_classes: int
    scale: float
    sha256: str
    warning: str = ""
    source: str = ""
    x_validation: Array = field(default_factory=lambda: np.empty(0, np.uint8))
    y_validation: Array = field(default_factory=lambda: np.empty(0, np.int32))

    @property
    def is_own(self) -> bool:
        """Whether it is the user's own data, and not one of the named data sets."""
        return self.name == "arrays" or "." in self.name

    @property
    def images(self) -> tuple[Array, Array, Array]:
        """The images of all splits: train, test, validation."""
        return self.x_train, self.x_test, self.x_validation

    @functools.cached_property
    def span(self) -> tuple[float, float]:
        """The minimum and maximum of x_train, after scaling."""
        return float(self.x_train.min() / self.scale), float(self.x_train.max() / self.scale)

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
        name: mnist, mnist_5k, digits, fashion_mnist, arrays, or `module.function`, a function without
            arguments that returns a mapping with x_train, y_train, x_test and y_test.
        path: an `.npz` file to load instead, with x_train, y_train, x_test and y_test.
        offline: what to do if mnist is not available: `subset` loads the 5,000 images of mnist_5k, `error`
            raises an error.
        label: as in `Reading`, like the next two.
        image_size: height and width.
        image_mode: grey or color.
        scale: auto, standardize, or a number above 0.
        test_fraction: fraction of each class that is split off if the data have no test part.
        split_seed: seed of that split.
        say: called with a message before a download.

    Raises:
        DataError: the data are not available, or not suitable for training.
        ConfigError: the function `name` cannot be imported.
    """
    if path is not None:
        size = (image_size[0], image_size[1]) if image_size else None
        found = readers.read(Path(path), Reading(label, size, image_mode))
        arrays = {
            f"{kind}_{part}": each
            for part, xy in found.parts.items()
            for kind, each in zip("xy", xy, strict=True)
        }
        return _checked(name, (arrays, found.source))
    if "." in name:
        return _checked(name, _from_function(name))
    if name == "arrays":
        raise DataError("dataset=arrays needs a file", "type dataset=arrays dataset.path=FILE.npz")
    if name == "mnist_5k":
        return _checked(name, sources.mnist_5k())
    if name == "digits":
        return _checked(name, sources.digits(), scale=16.0)
    try:
        loaded = sources.mnist(say) if name == "mnist" else sources.fashion_mnist(say)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, a checksum's a ValueError
        reason = f"{name} is not in the cache, and its download failed ({type(error).__name__})"
        hint = f"set dataset.path=FILE.npz, or copy the published files to {cache_directory()}"
        if name == "fashion_mnist" or offline == "error":
            raise DataError(reason, hint) from error
        instead = "Training on the 5,000 MNIST images of mnist_5k instead"
        warning = f"{reason}.\n{instead}.\nFor all 70,000, {hint}."
        return _checked("mnist_5k", sources.mnist_5k(), warning=warning)
    return _checked(name, loaded)


def _from_function(name: str) -> tuple[Arrays, Path | None]:
    """Returns the arrays that a user's function creates, and the file of its module, if there is one."""
    try:
        made = user_functions.find(name, {})()
    except MlpTapeError:
        raise
    except Exception as error:
        raise DataError(
            f"{name}() failed: {type(error).__name__}: {error}", "correct the function"
        ) from error
    missing = [key for key in KEYS if not isinstance(made, Mapping) or key not in made]
    if missing:
        raise DataError(
            f"{name}() does not return {', '.join(missing)}", f"return a dict of {', '.join(KEYS)}"
        )
    file = getattr(sys.modules.get(name.rpartition(".")[0]), "__file__", None)
    return {key: np.asarray(made[key]) for key in KEYS}, Path(file) if file else None


@functools.lru_cache(maxsize=2)  # shared by the jobs of a sweep
def with_validation(dataset: Dataset, fraction: float) -> Dataset:
    """Holds out some training images for model selection, the same ones for every call and seed.

    Args:
        dataset: data set without validation images.
        fraction: fraction of the training images to hold out, in [0, 1); above 0, at least one image.

    Raises:
        DataError: no image would be left to train on.
    """
    if not fraction:
        return dataset
    n = len(dataset.x_train)
    taken = max(1, round(fraction * n))
    if taken >= n:
        raise DataError(
            f"validation_fraction={fraction} of {count(n, 'image')} leaves none to train on",
            "choose a smaller fraction",
        )
    order = np.random.default_rng(0).permutation(n)
    remaining, validation = np.sort(order[taken:]), np.sort(order[:taken])
    return dataclasses.replace(
        dataset,
        x_train=host_arrays.taken(dataset.x_train, remaining),
        y_train=dataset.y_train[remaining],
        x_validation=host_arrays.taken(dataset.x_train, validation),
        y_validation=dataset.y_train[validation],
    )


def _checked(
    name: str, loaded: tuple[Arrays, Path | None], scale: float = 255.0, warning: str = ""
) -> Dataset:
    """Checks the shapes, dtypes and ranges of arrays, and returns them as a Dataset with their source."""
    (arrays, source), x, y = loaded, {}, {}
    for split in ("train", "test"):
        x[split] = _features(f"x_{split}", arrays[f"x_{split}"])
        y[split] = _labels(f"y_{split}", arrays[f"y_{split}"])
        if len(x[split]) != len(y[split]) or len(y[split]) == 0:
            raise DataError(
                f"x_{split} has {count(len(x[split]), 'row')} and y_{split} {len(y[split])}",
                "provide one label for each image, and at least one image",
            )
    for what in ("shape", "dtype"):
        train, test = (getattr(x[split], what) for split in ("train", "test"))
        if what == "shape":
            train, test = train[1:], test[1:]
        if train != test:
            raise DataError(
                f"x_train and x_test differ in {what}: {train} and {test}", f"use the same {what} for both"
            )
    n_classes = 1 + max(int(labels.max()) for labels in y.values())
    if n_classes < 2 or n_classes > 10_000:
        raise DataError(
            f"the labels go up to {n_classes - 1}",
            "use labels from 0 to classes - 1, with at least 2 classes",
        )
    return Dataset(
        name=name,
        x_train=x["train"],
        y_train=y["train"],
        x_test=x["test"],
        y_test=y["test"],
        n_classes=n_classes,
        scale=scale if x["train"].dtype == np.uint8 else 1.0,
        sha256=_sha256(x["train"], y["train"], x["test"], y["test"]),
        warning=warning,
        source=str(source.absolute()) if source else "",
    )


def _features(key: str, x: Array) -> Array:
    """Converts features to uint8 (integers from 0 to 255) or float32 (finite floats)."""
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise DataError(
            f"{key} has the shape {x.shape}", "provide an array of shape [n, ...], with one row per image"
        )
    if np.issubdtype(x.dtype, np.integer):
        if x.size and (x.min() < 0 or x.max() > 255):
            raise DataError(
                f"{key} contains integers from {x.min()} to {x.max()}",
                "use integers from 0 to 255, or floats",
            )
        return host_arrays.aligned(x, np.uint8)
    if np.issubdtype(x.dtype, np.floating):
        with np.errstate(over="ignore"):
            x = host_arrays.aligned(x, np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{key} contains NaN, infinity or values beyond float32", "use finite numbers")
        return x
    raise DataError(f"{key} is of dtype {x.dtype}", "use integers from 0 to 255, or floats")


def _labels(key: str, y: Array) -> Array:
    """Converts labels to class numbers, int32 [n]."""
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{key} is {y.dtype} of shape {y.shape}", "use integer class numbers of shape [n]")
    if y.size and (y.min() < 0 or y.max() > 9_999):
        raise DataError(f"{key} goes from {y.min()} to {y.max()}", "use class numbers from 0 to 9,999")
    return y.astype(np.int32)


def _sha256(*arrays: Array) -> str:
    digest = hashlib.sha256()
    for key, array in zip(KEYS, arrays, strict=True):
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
