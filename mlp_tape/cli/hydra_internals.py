"""Every part of Hydra that is not documented and used here, each with its reason.

They were tried with Hydra 1.3.2 and 1.3.8. Where a version lacks one, the program works without it, as each
function says; `tests/cli/test_hydra_internals.py` fails with the name.
"""

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

Composition = Callable[[DictConfig, list[str]], DictConfig]

PARSER = "hydra._internal.utils:get_args_parser"
OVERRIDE_DIRNAME = "hydra._internal.config_loader_impl:get_overrides_dirname"
SWEEP_COMPOSITION = "hydra._internal.config_loader_impl:ConfigLoaderImpl.load_sweep_config"


def find(name: str) -> Any:
    """The object of a name such as `package.module:Class.method`; None where this Hydra does not have it."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found


def missing() -> list[str]:
    """The names that this version of Hydra does not have."""
    return [name for name in (PARSER, OVERRIDE_DIRNAME, SWEEP_COMPOSITION) if find(name) is None]


def arguments_parser() -> argparse.ArgumentParser | None:
    """The parser of Hydra's own options, by which an unknown one is refused in two lines.

    Hydra has no other list of its options. None: Hydra refuses them itself, in many lines.
    """
    make = find(PARSER)
    return make() if make else None


def override_dirname(overrides: list[Override], settings: DictConfig) -> str | None:
    """What `hydra.job.override_dirname` is with other overrides, for a job that is a copy of the first.

    None where that is not known: the job has to be composed by Hydra.
    """
    make = find(OVERRIDE_DIRNAME)
    return str(make(overrides, **{str(key): value for key, value in settings.items()})) if make else None


@contextlib.contextmanager
def sweep_composition(compose: Callable[[Composition], Composition]) -> Iterator[None]:
    """Replaces how Hydra composes the configuration of a job of a sweep, within the block.

    Hydra composes each job anew, which takes longer than a short job. Where this Hydra has no such method,
    each job is composed by Hydra.

    Args:
        compose: from Hydra's method, which takes the sweep's configuration and the overrides of a job, to
            the one that is called in its place.
    """
    if find(SWEEP_COMPOSITION) is None:
        yield
        return
    loader: Any = GlobalHydra.instance().config_loader()
    loader.load_sweep_config = compose(loader.load_sweep_config)
    try:
        yield
    finally:
        del loader.load_sweep_config
