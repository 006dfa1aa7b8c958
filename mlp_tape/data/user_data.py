"""Data that a user's own function returns."""

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlp_tape.data import contents
from mlp_tape.data.contents import PARTS, Contents
from mlp_tape.errors import ConfigError, DataError, UserFunctionError
from mlp_tape.system import user_functions

FORMS = (
    "return a dict of x_train, y_train, x_test and y_test, or the tuple (x_train, y_train), (x_test, y_test)"
)


def read(name: str, path: str | None) -> Contents:
    """Calls a user's function and returns its data.

    Args:
        name: `module.function`. It returns a dict of arrays named x_train, y_train and, if there are any,
            x_validation, y_validation, x_test and y_test; or a tuple of two or three pairs of images and
            labels, (train, test) or (train, validation, test); or one pair.
        path: argument of the function, if it has one; None to call it without.

    Raises:
        ConfigError: the function cannot be imported, or a path is given that it does not accept.
        DataError: the function failed, or returns something else.
    """
    function = user_functions.find(name, {})
    made = _called(name, function, path)
    module = sys.modules.get(name.rpartition(".")[0])
    file = getattr(module, "__file__", None)
    source = Path(path) if path is not None else Path(file) if file else None
    what = f"{user_functions.defined_at(name)}: {name}"
    try:
        return contents.of_arrays(_named(what, made), source)
    except (TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{what}() returns what is no array: {first}", FORMS) from error


def _called(name: str, function: Callable[..., Any], path: str | None) -> Any:
    given = [] if path is None else [path]
    try:
        inspect.signature(function).bind(*given)
    except TypeError as error:
        short = name.rpartition(".")[2]
        if given:
            raise ConfigError(
                f"dataset.path={path}, but {name} takes no path",
                f"write it as {short}(path), or leave out dataset.path or dataset.name",
            ) from error
        raise ConfigError(f"{name} takes an argument", "type dataset.path=PATH, which it receives") from error
    except ValueError:  # written in C
        pass
    try:
        return user_functions.called(name, function, *given)
    except UserFunctionError as error:
        raise DataError(error.what, error.hint) from error


def _named(name: str, made: Any) -> dict[str, Any]:
    """Returns what a function returned as arrays by name."""
    if isinstance(made, Mapping):
        if "x" in made and "y" in made:
            made = {"x_train": made["x"], "y_train": made["y"]} | dict(made)
        arrays = {
            f"{kind}_{part}": made[f"{kind}_{part}"]
            for part in PARTS
            for kind in "xy"
            if f"{kind}_{part}" in made
        }
        missing = [key for part in PARTS for key in _lacking(arrays, part)]
        if missing:
            raise DataError(f"{name}() does not return {', '.join(missing)}", FORMS)
    elif isinstance(made, tuple | list):
        pairs = list(made) if all(_is_pair(each) for each in made) else [made]
        parts = {1: PARTS[:1], 2: ("train", "test"), 3: PARTS}.get(len(pairs), ())
        if not parts or not all(_is_pair(each) for each in pairs):
            raise DataError(
                f"{name}() returns {len(made)} values that are no pairs of images and labels", FORMS
            )
        arrays = {
            f"{kind}_{part}": each
            for part, xy in zip(parts, pairs, strict=True)
            for kind, each in zip("xy", xy, strict=True)
        }
    else:
        raise DataError(f"{name}() returns {type(made).__name__}", FORMS)
    return {key: np.asanyarray(array) for key, array in arrays.items()}


def _lacking(arrays: Mapping[str, Any], part: str) -> list[str]:
    """Returns which of the two arrays of a part are missing; neither need be there, except of `train`."""
    both = f"x_{part}", f"y_{part}"
    if part != "train" and not any(key in arrays for key in both):
        return []
    return [key for key in both if key not in arrays]


def _is_pair(made: Any) -> bool:
    return isinstance(made, tuple | list) and len(made) == 2 and not np.isscalar(made[0])
