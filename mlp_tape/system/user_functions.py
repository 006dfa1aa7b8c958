"""Functions by their names: those of the program, and a person's own by `module.function`."""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlp_tape.errors import ConfigError
from mlp_tape.system import tensorflow_setup

Function = Callable[..., Any]


def find(name: str, known: Mapping[str, Function]) -> Function:
    """The function of a name.

    Args:
        name: one of the known, or `module.function`, which is imported from the current directory or from
            where Python finds it.
        known: the program's own.

    Raises:
        ConfigError: it is not there.
    """
    if name in known:
        return known[name]
    tensorflow_setup.import_tensorflow()  # before the module does, with less noise
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
            f"put {function} into {module.replace('.', '/')}.py here"
            + (f", or type one of: {', '.join(known)}" if known else ""),
        ) from error
    return found
