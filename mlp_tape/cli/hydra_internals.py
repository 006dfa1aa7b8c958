"""All undocumented parts of Hydra that this package uses, each with its purpose.

They were tested with Hydra 1.3.2 and 1.3.8. The program also works with a version that lacks one of them, as
each function describes; `tests/cli/test_hydra_internals.py` then fails and names it.
"""

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.version import VersionBase
from omegaconf import DictConfig

Composition = Callable[[DictConfig, list[str]], DictConfig]

PARSER = "hydra._internal.utils:get_args_parser"
OVERRIDE_DIRNAME = "hydra._internal.config_loader_impl:get_overrides_dirname"
SWEEP_COMPOSITION = "hydra._internal.config_loader_impl:ConfigLoaderImpl.load_sweep_config"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher:BasicLauncher"


def find(name: str) -> Any:
    """Returns the object named `package.module:Class.method`; None if this version of Hydra lacks it."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found


def missing() -> list[str]:
    """Returns the names that this version of Hydra lacks."""
    names = PARSER, OVERRIDE_DIRNAME, SWEEP_COMPOSITION, BASIC_LAUNCHER
    return [name for name in names if find(name) is None]


def arguments_parser() -> argparse.ArgumentParser | None:
    """Returns the parser of Hydra's own options, for our own error message for an unknown option.

    Hydra has no other list of its options. If it is None, Hydra rejects them with its own message.
    """
    make = find(PARSER)
    return make() if make else None


def override_dirname(overrides: list[Override], settings: DictConfig) -> str | None:
    """Returns `hydra.job.override_dirname` for other overrides, for a job that is a copy of the first.

    Args:
        overrides: overrides of the job.
        settings: `hydra.job.config.override_dirname`.

    Returns:
        The value; None if it is unknown, and the job has to be composed by Hydra.
    """
    make = find(OVERRIDE_DIRNAME)
    return str(make(overrides, **{str(key): value for key, value in settings.items()})) if make else None


@contextlib.contextmanager
def sweep_composition(compose: Callable[[Composition], Composition]) -> Iterator[None]:
    """Replaces, within the block, the method by which Hydra composes the config of a job.

    Hydra composes the config of each job from scratch, which can take longer than the job. A version of
    Hydra that lacks the method still does so.

    Args:
        compose: function from Hydra's method, which takes the config of the sweep and the overrides of a
            job, to its replacement.
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


def keeps_configs(launcher: Launcher) -> bool:
    """Returns whether a launcher runs jobs one after the other, and keeps the configs of all until the end.

    Hydra's default launcher does, 0.1 MB a job; of a version of Hydra that has another one, this is unknown.
    """
    # By name, as Hydra imports its plug-ins again.
    return f"{type(launcher).__module__}:{type(launcher).__qualname__}" == BASIC_LAUNCHER


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """Sets aside, within the block, what another program in this process has of Hydra, as if it had none.

    That is its configs in the ConfigStore, its Hydra, and its `version_base`. The classes are public, their
    attributes are not documented.
    """
    Plugins.instance()  # registers the configs of plug-ins, once in a process
    store, version = ConfigStore.instance(), VersionBase.instance()
    configs, outer, base = store.repo, GlobalHydra.instance().hydra, version.getbase()
    store.repo = _copied(configs)
    GlobalHydra.instance().clear()
    try:
        yield
    finally:  # `hydra.initialize` has put a copy in the place of the instance
        store.repo, GlobalHydra.instance().hydra, version.version_base = configs, outer, base


def _copied(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: _copied(each) if isinstance(each, dict) else each for key, each in tree.items()}
