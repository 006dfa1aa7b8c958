"""Lookup of functions by name: the program's own, and the user's as `module.function`."""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlp_tape.errors import ConfigError
from mlp_tape.system import tensorflow_setup

Function = Callable[..., Any]


def find(name: str, known: Mapping[str, Function]) -> Function:
    """Returns the function with a given name.

    Args:
        name: a key of `known`, or `module.function`, imported from the current directory or Python's path.
        known: the program's functions by name.

    Raises:
        ConfigError: the function cannot be imported.
    """
    if name in known:
        return known[name]
    tensorflow_setup.import_tensorflow()  # if the module imported it, it would print messages
    module, _, function = name.rpartition(".")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Function = getattr(importlib.import_module(module), function)
        if not callable(found):
            raise ImportError(f"{function} is not a function")
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{name} cannot be imported: {error}",
            f"define {function} in {module.replace('.', '/')}.py in the current directory"
            + (f", or type one of: {', '.join(known)}" if known else ""),
        ) from error
    return found
