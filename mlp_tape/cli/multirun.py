"""Sweeps (`-m`): validation of all their jobs before the first starts, their directory and their launcher."""

import contextlib
import copy
import logging
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlp_tape.cli import hydra_internals
from mlp_tape.cli.hydra_internals import Composition
from mlp_tape.config.settings import Settings, TrackingSettings
from mlp_tape.errors import ConfigError
from mlp_tape.runs import resume
from mlp_tape.storage import run_record
from mlp_tape.system import signals
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import resolve_uri

Parse = Callable[[DictConfig], Settings]

# Configs that Hydra only finds if an extra of this package is installed.
EXTRAS = {
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/ray": "ray",
    "hydra/sweeper/optuna": "optuna",
}
IN_THIS_PROCESS, JOBLIB = "BasicLauncher", "JoblibLauncher"
MULTIRUN = {"-m", "--multirun"}
URI = "MLFLOW_TRACKING_URI"


def as_recorded(arguments: list[str]) -> list[str]:
    """Returns the command line; if it only resumes a sweep, with the overrides that the sweep recorded.

    Raises:
        ConfigError: the sweep to resume was not found.
    """
    which = [text.partition("=")[2] for text in arguments if text.startswith("sweep.resume=")]
    swept = [text for text in arguments if not text.startswith(("-", "sweep.", "tracking.", "hydra."))]
    if not which or swept or not MULTIRUN & set(arguments):
        return arguments
    recorded = run_record.read(resume.find(which[-1], resolve_uri(TrackingSettings()), "sweep")).overrides
    at = next(i for i, text in enumerate(arguments) if text.startswith("sweep.resume="))
    kept = [text for text in recorded if not text.startswith("sweep.resume=") and "***@" not in text]
    return [*arguments[:at], *kept, *arguments[at:]]  # argparse requires all overrides in one sequence


def without_secrets(arguments: list[str]) -> list[str]:
    """Returns the command line; for a sweep, a tracking URI with a password is moved to the environment.

    Hydra writes the command line of a sweep to `multirun.yaml` before its first job starts.
    """
    if not MULTIRUN & set(arguments):
        return arguments
    kept = list(arguments)
    for i, text in enumerate(arguments):
        key, _, value = text.partition("=")
        if key.lstrip("+") == "tracking.uri" and without_password(value) != value:
            with contextlib.suppress(HydraException):  # raised again when Hydra parses the command line
                override = OverridesParser.create().parse_override(text)
                if not override.is_sweep_override():
                    os.environ[URI] = str(override.value())
                    kept[i] = f"{key}=${{oc.env:{URI}}}"
    return kept


def typed_overrides(config: DictConfig) -> list[str]:
    """Returns the overrides of the command line, including those of Hydra's own settings."""
    overrides = [*config.hydra.overrides.task, *config.hydra.overrides.hydra]
    return [text for text in overrides if not text.startswith(("hydra.mode=", "hydra.sweep.dir="))]


def check(config: DictConfig, parse: Parse) -> tuple[list[Settings], int | None]:
    """Validates each value of each swept setting, before anything is started.

    Args:
        config: config of the sweep, composed by Hydra.
        parse: function that validates the composed config of a job.

    Returns:
        Settings in which each value occurs at least once, beginning with those of the first job, and the
        number of jobs; None if it is not known in advance.

    Raises:
        ConfigError: a setting is invalid.
        HydraException: a config cannot be composed.
    """
    is_basic = str(config.hydra.sweeper._target_).endswith("BasicSweeper")
    choices = _choices(config, is_basic)
    name, values = config.hydra.job.config_name, [each[0] for each in choices]
    first = hydra.compose(name, values)
    settings = [parse(first)]
    for i, each in enumerate(choices):
        for value in each[1:]:
            changed = copy.deepcopy(first)
            if not _set_value(changed, value):
                changed = hydra.compose(name, [*values[:i], value, *values[i + 1 :]])
            settings.append(parse(changed))
    if any(job.resume is not None for job in settings):
        raise ConfigError(
            "resume=... resumes a single run", "remove -m, or type sweep.resume=... to resume a sweep"
        )
    return settings, math.prod(map(len, choices)) if is_basic else None


def _choices(config: DictConfig, is_basic: bool) -> list[list[str]]:
    """Returns the overrides of a sweep, each as the list of its values."""
    params = config.hydra.sweeper.get("params") if is_basic else None
    given = [f"{key}={value}" for key, value in (params or {}).items()]
    choices: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides([*given, *config.hydra.overrides.task]):
        key = override.get_key_element()
        if override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif not override.is_sweep_override():
            choices[key] = [override.input_line or ""]
    return list(choices.values())


def _set_value(composed: DictConfig, text: str) -> bool:
    """Applies an override to a composed config, if it only changes the value of a setting.

    Returns:
        Whether it was applied; an option of a group, for example, requires a new composition.
    """
    override = OverridesParser.create().parse_override(text)
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or override.is_delete():
        return False
    if override.package or "/" in key or override.is_hydra_override():
        return False
    if isinstance(OmegaConf.select(composed, key), DictConfig | None):
        return False
    OmegaConf.update(composed, key, override.value(), merge=False)
    return True


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
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={_quoted(str(directory))}")
    return directory


def _quoted(text: str) -> str:
    """Returns any text as a quoted value in Hydra's override grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${") + "'"


def launcher(config: DictConfig) -> str:
    """Returns the name of the class of Hydra's launcher, which runs the jobs."""
    return str(config.hydra.launcher._target_).rpartition(".")[2]


def prepare_launcher(config: DictConfig, sweep: contextlib.ExitStack) -> None:
    """Prepares launcher and sweeper: fast composition, signals, independent joblib workers, Optuna's output.

    Args:
        config: config of the sweep, composed by Hydra.
        sweep: exit stack that is closed after the last job.
    """
    if str(config.hydra.sweeper._target_).endswith("OptunaSweeper"):
        import optuna  # installed together with the sweeper

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("hydra_plugins").setLevel(logging.CRITICAL)  # the sweep reports failures itself
    if launcher(config) == IN_THIS_PROCESS:
        sweep.enter_context(hydra_internals.sweep_composition(_composed_once))
        return
    sweep.enter_context(signals.forwarded())
    if launcher(config) == JOBLIB:
        from mlp_tape.sweeps import joblib_backend

        joblib_backend.install()


def _composed_once(compose: Composition) -> Composition:
    """Wraps a composition so that jobs that differ in values alone are changed copies of the first job."""
    first = list[tuple[list[str], bytes]]()

    def load(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        if not first:
            first.append((sweep_overrides, pickle.dumps(compose(master_config, sweep_overrides))))
        return _changed_copy(*first[0], sweep_overrides) or compose(master_config, sweep_overrides)

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
    parsed = OverridesParser.create().parse_overrides(wanted)
    task = [override for override in parsed if not override.is_hydra_override()]
    copied.hydra.overrides.task = [override.input_line for override in task]
    name = hydra_internals.override_dirname(task, copied.hydra.job.config.override_dirname)
    if name is None:
        return None
    copied.hydra.job.override_dirname = name
    return copied
