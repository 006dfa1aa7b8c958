"""What `-m` means: which jobs are named, whether they can be, where they lie, and who runs them."""

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

# What Hydra cannot find where an extra is not installed.
EXTRAS = {
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/ray": "ray",
    "hydra/sweeper/optuna": "optuna",
}
IN_THIS_PROCESS = "BasicLauncher"
URI = "MLFLOW_TRACKING_URI"


def as_recorded(arguments: list[str]) -> list[str]:
    """The command line; where nothing but `sweep.resume=` is typed, with that of the sweep itself.

    Raises:
        ConfigError: there is no such sweep.
    """
    which = [text.partition("=")[2] for text in arguments if text.startswith("sweep.resume=")]
    swept = [text for text in arguments if not text.startswith(("-", "sweep.", "tracking.", "hydra."))]
    if not which or swept or not {"-m", "--multirun"} & set(arguments):
        return arguments
    recorded = run_record.read(resume.find(which[-1], resolve_uri(TrackingSettings()), "sweep")).overrides
    here = next(i for i, text in enumerate(arguments) if text.startswith("sweep.resume="))
    kept = [text for text in recorded if not text.startswith("sweep.resume=") and "***@" not in text]
    return [*arguments[:here], *kept, *arguments[here:]]  # all overrides stand together


def without_secrets(arguments: list[str]) -> list[str]:
    """The command line; in a sweep's, an address with a password is replaced by one of the environment.

    Hydra writes a sweep's command line to `multirun.yaml` before any of its jobs begins.
    """
    if not {"-m", "--multirun"} & set(arguments):
        return arguments
    kept = list(arguments)
    for i, text in enumerate(arguments):
        key, _, value = text.partition("=")
        if key.lstrip("+") == "tracking.uri" and without_password(value) != value:
            with contextlib.suppress(HydraException):  # which says so itself
                override = OverridesParser.create().parse_override(text)
                if not override.is_sweep_override():
                    os.environ[URI] = str(override.value())
                    kept[i] = f"{key}=${{oc.env:{URI}}}"
    return kept


def typed(config: DictConfig) -> list[str]:
    """The overrides of the command line, Hydra's own included."""
    overrides = [*config.hydra.overrides.task, *config.hydra.overrides.hydra]
    return [text for text in overrides if not text.startswith(("hydra.mode=", "hydra.sweep.dir="))]


def check(config: DictConfig, parse: Parse) -> tuple[list[Settings], int | None]:
    """Checks each value of each sweep, before anything is started.

    Args:
        config: what Hydra composed of the command line.
        parse: checks what Hydra composes of a job's.

    Returns:
        Settings in which each value occurs, and how many jobs there are, where that is known before.

    Raises:
        ConfigError: a setting is wrong.
        HydraException: a config cannot be composed.
    """
    basic = str(config.hydra.sweeper._target_).endswith("BasicSweeper")
    choices = _choices(config, basic)
    name, values = config.hydra.job.config_name, [each[0] for each in choices]
    first = hydra.compose(name, values)
    settings = [parse(first)]
    for i, each in enumerate(choices):
        for value in each[1:]:
            changed = copy.deepcopy(first)
            if not _put(changed, value):
                changed = hydra.compose(name, [*values[:i], value, *values[i + 1 :]])
            settings.append(parse(changed))
    if any(job.resume is not None for job in settings):
        raise ConfigError(
            "resume=... resumes a single run", "type it without -m; for a sweep, sweep.resume=..."
        )
    return settings, math.prod(map(len, choices)) if basic else None


def _choices(config: DictConfig, basic: bool) -> list[list[str]]:
    """The overrides of a sweep, each as its list of values."""
    given = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items() if basic]
    choices: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides([*given, *config.hydra.overrides.task]):
        key = override.get_key_element()
        if override.is_discrete_sweep():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        elif not override.is_sweep_override():
            choices[key] = [override.input_line or ""]
    return list(choices.values())


def _put(composed: DictConfig, text: str) -> bool:
    """Puts in another value of a setting; False for a choice of a group, say, which has to be composed."""
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


def settle_directory(config: DictConfig, settings: Settings) -> Path:
    """The sweep's directory, absolute, which each job's process is told of by way of Hydra.

    Raises:
        ConfigError: the sweep that is to be picked up is not there.
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
    """Text as a value in Hydra's grammar, whatever it holds."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${") + "'"


def prepare(config: DictConfig, around: contextlib.ExitStack) -> bool:
    """Lets jobs in other processes end by themselves on a signal, and joblib's outlive each other.

    Args:
        config: what Hydra composed of the command line.
        around: what is to be closed when the sweep is over.

    Returns:
        Whether the process may leave without a launcher's own ending.
    """
    if str(config.hydra.sweeper._target_).endswith("OptunaSweeper"):
        import optuna  # comes with the sweeper

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("hydra_plugins").setLevel(logging.CRITICAL)  # of failures, the sweep tells
    if launcher(config) == IN_THIS_PROCESS:
        around.enter_context(hydra_internals.sweep_composition(_composed_once))
        return True
    around.enter_context(signals.forwarded())
    if launcher(config) == "JoblibLauncher":
        from mlp_tape.sweeps import joblib_backend

        joblib_backend.install()
    return launcher(config) == "JoblibLauncher"


def launcher(config: DictConfig) -> str:
    """The class of Hydra's that runs the jobs."""
    return str(config.hydra.launcher._target_).rpartition(".")[2]


def _composed_once(compose: Composition) -> Composition:
    """Makes a job that differs in values alone a copy of the first one."""
    first = list[tuple[list[str], bytes]]()

    def load(master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        if not first:
            first.append((sweep_overrides, pickle.dumps(compose(master_config, sweep_overrides))))
        return _changed(*first[0], sweep_overrides) or compose(master_config, sweep_overrides)

    return load


def _changed(overrides: list[str], composed: bytes, wanted: list[str]) -> DictConfig | None:
    """What was composed of some overrides, as it would be of others; None where that is not to be had so.

    It was pickled here: to read that again takes a seventh of the time of copy.deepcopy.
    """
    made: DictConfig = pickle.loads(composed)
    if len(wanted) != len(overrides):
        return None
    for old, new in zip(overrides, wanted, strict=True):
        if new != old and (new.partition("=")[0] != old.partition("=")[0] or not _put(made, new)):
            return None
    parsed = OverridesParser.create().parse_overrides(wanted)
    of_task = [override for override in parsed if not override.is_hydra_override()]
    made.hydra.overrides.task = [override.input_line for override in of_task]
    name = hydra_internals.override_dirname(of_task, made.hydra.job.config.override_dirname)
    if name is None:
        return None
    made.hydra.job.override_dirname = name
    return made
