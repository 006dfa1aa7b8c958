"""Sweeps (`-m`): their directory, their launcher, and the composition of their jobs."""

import contextlib
import functools
import logging
import pickle
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlp_tape.cli import free_text, hydra_internals, planner
from mlp_tape.cli.hydra_internals import Composition
from mlp_tape.config import suggestions
from mlp_tape.config.settings import Settings, groups
from mlp_tape.errors import ConfigError
from mlp_tape.runs import resume
from mlp_tape.system import signals
from mlp_tape.tracking.uri import resolve_uri

# Configs that Hydra only finds if an extra of this package is installed.
EXTRAS = {
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/ray": "ray",
}
MOST_COPIED = 100  # compositions with different options of groups that are kept
IN_THIS_PROCESS, JOBLIB = "BasicLauncher", "JoblibLauncher"


def set_directory(config: DictConfig, settings: Settings) -> Path:
    """Sets the directory of a sweep in Hydra's config, which the processes of its jobs receive.

    Args:
        config: config of the sweep; changed in place.
        settings: settings of the first job.

    Returns:
        The directory, absolute: that of the sweep to resume, else a new one.

    Raises:
        ConfigError: the sweep to resume was not found.
    """
    if settings.sweep.resume is None:
        directory = Path(config.hydra.sweep.dir).absolute()
    else:
        directory = resume.find(settings.sweep.resume, resolve_uri(settings.tracking), "sweep")
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(directory)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={free_text.literal(str(directory))}")
    return directory


def is_by_config(config: DictConfig, loader: ConfigLoader, first: list[str]) -> bool:
    """Returns whether a config, such as an experiment, sets `hydra.mode` to MULTIRUN.

    Args:
        config: config of the sweep, composed by Hydra.
        loader: Hydra's config loader.
        first: overrides of the first job.
    """
    of_hydra = planner.as_written(config.hydra.overrides.hydra)
    overrides = [text for text in of_hydra if not text.startswith("hydra.mode=")] + first
    composed = loader.load_configuration(config.hydra.job.config_name, overrides, RunMode.RUN)
    return bool(composed.hydra.mode == RunMode.MULTIRUN)


def check_plugins(config: DictConfig) -> None:
    """Raises ConfigError if launcher or sweeper are not selected by their group, or have no processes."""
    for name in ("launcher", "sweeper"):
        node = config.hydra[name]
        if not isinstance(node, DictConfig):
            raise ConfigError(
                f"hydra.{name}={node}: a {name} is selected as a group", f"type hydra/{name}={node}"
            )
    if config.hydra.launcher.get("n_jobs") == 0:
        raise ConfigError(
            "hydra.launcher.n_jobs=0: expected a number of processes above 0, or -1 for one per processor",
            "type hydra.launcher.n_jobs=-1",
        )


def launcher(config: DictConfig) -> str:
    """Returns the name of the class of Hydra's launcher, which runs the jobs."""
    return str(config.hydra.launcher._target_).rpartition(".")[2]


def prepare_launcher(config: DictConfig, compose: Composition, sweep: contextlib.ExitStack) -> None:
    """Prepares the launcher: fast composition, signals, independent joblib workers.

    Args:
        config: config of the sweep, composed by Hydra.
        compose: function that composes the config of a job.
        sweep: exit stack that is closed after the last job.
    """
    logging.getLogger("hydra_plugins").setLevel(logging.CRITICAL)  # the sweep reports failures itself
    if launcher(config) == IN_THIS_PROCESS:
        sweep.enter_context(hydra_internals.sweep_composition(lambda _: compose))
        return
    sweep.enter_context(signals.forwarded())
    if launcher(config) == JOBLIB:
        from mlp_tape.sweeps import joblib_backend

        joblib_backend.install()


def composed_once(compose: Composition) -> Composition:
    """Wraps a composition so that jobs that differ in values alone are changed copies of an earlier job."""
    known: dict[tuple[str, ...], tuple[list[str], bytes]] = {}  # by the options of groups

    def load(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        names = (*groups(), *suggestions.ADDED)
        options = tuple(text for text in sweep_overrides if text.lstrip("+").partition("=")[0] in names)
        if options not in known and len(known) < MOST_COPIED:
            known[options] = sweep_overrides, pickle.dumps(compose(master_config, sweep_overrides))
        copied = _changed_copy(*known[options], sweep_overrides) if options in known else None
        return copied or compose(master_config, sweep_overrides)

    return load


def _changed_copy(overrides: list[str], composed: bytes, wanted: list[str]) -> DictConfig | None:
    """Returns a copy of a composed config with other overrides; None if it has to be composed by Hydra.

    Args:
        overrides: overrides with which the config was composed.
        composed: the config, pickled here; unpickling takes a seventh of the time of copy.deepcopy.
        wanted: overrides of the copy.
    """
    copied: DictConfig = pickle.loads(composed)
    if len(wanted) != len(overrides):
        return None
    for old, new in zip(overrides, wanted, strict=True):
        if new != old and (new.partition("=")[0] != old.partition("=")[0] or not _set_value(copied, new)):
            return None
    task = [override for override in map(_parsed, wanted) if not override.is_hydra_override()]
    copied.hydra.overrides.task = [override.input_line for override in task]
    name = hydra_internals.override_dirname(task, copied.hydra.job.config.override_dirname)
    if name is None:
        return None
    copied.hydra.job.override_dirname = name
    return copied


@functools.lru_cache(maxsize=1_000)  # the jobs of a sweep share most of them
def _parsed(text: str) -> Override:
    return OverridesParser.create().parse_override(text)


def _set_value(composed: DictConfig, text: str) -> bool:
    """Applies an override to a composed config, if it only changes the value of a setting.

    Returns:
        Whether it was applied; an option of a group, for example, requires a new composition.
    """
    override = _parsed(text)
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or override.is_delete():
        return False
    if override.package or "/" in key or override.is_hydra_override():
        return False
    if isinstance(OmegaConf.select(composed, key), DictConfig | None):
        return False
    OmegaConf.update(composed, key, override.value(), merge=False)
    return True
