"""A config-driven runner that trains a multilayer perceptron with bare tensors.

`settings`, `train`, `blocks`, `find` and `replay` are the Python API, described in docs/python.md. Its
modules, and the libraries that they need, are imported when one of its names is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_tape.api import Run, blocks, find, replay, settings, train
    from mlp_tape.errors import ConfigError, DataError, MlpTapeError

__all__ = [
    "ConfigError",
    "DataError",
    "MlpTapeError",
    "Run",
    "blocks",
    "find",
    "replay",
    "settings",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "errors" if name.endswith("Error") else "api"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
