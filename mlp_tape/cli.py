"""The command line: Hydra composes the settings, they are checked, and every error becomes an exit code."""

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mlp_tape import address, config, resume, stop
from mlp_tape.config import Settings
from mlp_tape.errors import ConfigError, DiskError, MlpTapeError
from mlp_tape.redact import without_password

WITH_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")

# Makes the directories of two runs differ that start within one second.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(3), use_cache=True, replace=True)
# A run that is gone on with keeps its directory.
OmegaConf.register_new_resolver("run_directory", lambda new: str(CheckSettings.resumed or new), replace=True)


def main(conf: Path) -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 nothing was started, 130 and 143 stopped.

    Args:
        conf: the directory of the YAML files.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, where it would print and exit
    entry = hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(_run)
    try:
        with stop.on_signals():
            entry()
    except BaseException as error:
        signal = stop.asked()
        if signal and not CheckSettings.sweeping:
            _leave_at_once(128 + signal)
        if signal:
            sys.exit(128 + signal)
        if WITH_TRACEBACK or not isinstance(error, Exception):
            raise
        if not CheckSettings.sweeping:  # a single run tells of its own errors, in _run
            sys.exit(_tell(_before_the_start(error)))
        _tell(error)
        sys.exit(1)
    if not CheckSettings.sweeping:
        _leave_at_once(0)


def _leave_at_once(code: int) -> None:
    """Exits without the second that the interpreter takes to unload TensorFlow and MLflow.

    A run has closed its files by then; a parallel sweep's workers still have to be seen off in order.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # the reader may have gone, as in `| head`
            stream.flush()
    os._exit(code)


def _run(composed: DictConfig) -> float:
    """One run; returns its last test accuracy, which a Hydra sweeper may optimise."""
    job = HydraConfig.get()
    settings = _settings(composed, list(job.overrides.task))
    from mlp_tape import runner

    try:
        return runner.run(settings, Path(job.runtime.output_dir), list(job.overrides.task))
    except Exception as error:
        in_a_sweep = job.mode == RunMode.MULTIRUN  # where Hydra goes on with the other jobs
        if WITH_TRACEBACK or in_a_sweep or stop.asked():
            raise
        sys.exit(_tell(error))


class CheckSettings(Callback):
    """Refuses wrong settings before Hydra has made a directory.

    Hydra turns an Exception of a callback into a warning, hence SystemExit.
    """

    sweeping = False  # whether a sweep's jobs have begun
    resumed: Path | None = None  # the directory of the run that is gone on with

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks the settings of a run, and finds the one to go on with."""
        settings = _refuse_if_wrong(config)
        if settings.resume is None:
            return
        try:
            CheckSettings.resumed = resume.find(settings.resume, address.of(settings.tracking))
            _settings(config, list(config.hydra.overrides.task))
        except MlpTapeError as error:
            sys.exit(_tell(error))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks every value that a sweep names."""
        for overrides in _each_value(list(config.hydra.overrides.task)):
            try:
                composed = hydra.compose(config.hydra.job.config_name, overrides)
            except HydraException as error:
                sys.exit(_tell(_before_the_start(error)))
            if _refuse_if_wrong(composed).resume is not None:
                sys.exit(_tell(ConfigError("resume=... goes on with one run", "type it without -m")))
        CheckSettings.sweeping = True


def _refuse_if_wrong(composed: DictConfig) -> Settings:
    try:
        return _parsed(composed)
    except ConfigError as error:
        sys.exit(_tell(error))


def _parsed(composed: DictConfig) -> Settings:
    """The settings, without Hydra's own."""
    return config.parse(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))


def _settings(composed: DictConfig, overrides: list[str]) -> Settings:
    """The settings as typed, or those of the run that is gone on with."""
    settings = _parsed(composed)
    if CheckSettings.resumed is None:
        return settings
    typed = OverridesParser.create().parse_overrides(overrides)
    names = resume.typed_keys(override.key_or_group for override in typed)
    return resume.settings(CheckSettings.resumed, settings, names)


def _each_value(overrides: list[str]) -> Iterator[list[str]]:
    """Yields lists of overrides without sweeps in which each value of each sweep occurs."""
    choices = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        elif not override.is_sweep_override():
            choices.append([override.input_line or ""])
    first = [values[0] for values in choices]
    yield first
    for position, values in enumerate(choices):
        for value in values[1:]:
            yield [*first[:position], value, *first[position + 1 :]]


def _tell(error: Exception) -> int:
    """Prints what is wrong and what to type instead, and returns the exit code."""
    if isinstance(error, OSError) and error.strerror:
        error = DiskError(
            f"{error.strerror}: {error.filename or 'the disk'}",
            "make room there, or start in another directory",
        )
    if not isinstance(error, MlpTapeError):
        error = MlpTapeError(
            f"{type(error).__name__}: {error}", "HYDRA_FULL_ERROR=1 python run.py ... shows where"
        )
    print(without_password(f"error: {error.what}\n       {error.hint}"), file=sys.stderr)
    return error.exit_code


def _before_the_start(error: Exception) -> ConfigError:
    """What Hydra refused to compose or to begin, as a ConfigError that says what to type."""
    first, *rest = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return ConfigError(
            f"{group}={option}: expected one of: {', '.join(error.options)}",
            f"type for example {group}={error.options[0]}",
        )
    if isinstance(error, OverrideParseException):
        return ConfigError(f"cannot read {error.override}: {first}", "quote it for the shell: 'key=[1,2]'")
    unknown = re.match(r"Could not override '([^']+)'", first)
    if unknown:
        return config.unknown_key(unknown[1])
    if first.startswith("Ambiguous value for argument"):
        return ConfigError(first, "to sweep over the values, type python run.py -m ...")
    if isinstance(error, OSError):
        return ConfigError(
            f"{type(error).__name__}: {first}", "start it in a directory that you can write to"
        )
    return ConfigError(first, " ".join(rest).strip() or "python run.py --help shows how")
