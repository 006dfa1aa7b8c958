"""The command line: Hydra composes the settings, they are checked, and every error becomes an exit code."""

import contextlib
import os
import secrets
import string
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mlp_tape.cli import config_store, hydra_internals, multirun
from mlp_tape.cli.messages import composition_error, report_error
from mlp_tape.config import validation
from mlp_tape.config.settings import Settings
from mlp_tape.errors import ConfigError, MlpTapeError
from mlp_tape.runs import resume
from mlp_tape.storage import run_record
from mlp_tape.system import exit, signals, tensorflow_setup
from mlp_tape.tracking import client_process
from mlp_tape.tracking.uri import resolve_uri

WITH_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")

config_store.register()
# Makes the directories of two runs differ that start within one second.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(3), use_cache=True, replace=True)
# A run that is gone on with keeps its directory.
OmegaConf.register_new_resolver("run_directory", lambda new: str(CheckSettings.resumed or new), replace=True)


def main(conf: Path) -> NoReturn:
    """Runs the command line and exits: 0 done, 1 failed, 2 nothing was started, 130 and 143 stopped.

    Args:
        conf: the directory of the YAML files.
    """
    exit.own_temporary_directory()
    code = _exit_code(conf)
    client_process.stop_all()
    if CheckSettings.may_leave_at_once:
        exit.leave(code)
    exit.leave_after_handlers(code)  # a launcher of another package may have processes to end


def _exit_code(conf: Path) -> int:
    """Runs the command line; every error becomes an exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, where it would print and exit
    code = 0
    try:
        _refuse_unknown_options(sys.argv[1:])
        entry = hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(_run)
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(_help(conf, [text for text in sys.argv[1:] if not text.startswith("-")]))
            return 0
        with signals.on_signals():
            sys.argv[1:] = multirun.without_secrets(multirun.as_recorded(sys.argv[1:]))
            with CheckSettings.around:
                entry()
    except BaseException as error:
        code = _code_of(error)
    signal = (
        signals.received()
    )  # in a sweep, its jobs in other processes may have ended by it without an error here
    return 128 + signal if signal else code


def _code_of(error: BaseException) -> int:
    """Says what is wrong, if nobody has said it yet; returns the exit code."""
    if signals.received():
        return 0  # the signal is the reason
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if WITH_TRACEBACK or not isinstance(error, Exception):
        traceback.print_exception(error)
        return error.exit_code if isinstance(error, MlpTapeError) else 1
    told = CheckSettings.sweeping or isinstance(error, MlpTapeError)
    return report_error(error if told else composition_error(error))


def _refuse_unknown_options(arguments: list[str]) -> None:
    """Answers what Hydra's command line cannot read in two lines, where argparse would list all there is."""

    def refuse(message: str) -> NoReturn:
        first = message.replace("unrecognized arguments", "unknown option")
        raise ConfigError(first, "python run.py --help, or --hydra-help, lists what there is")

    parser = hydra_internals.arguments_parser()
    if parser:
        parser.error = refuse  # type: ignore[method-assign]
        parser.parse_args(arguments)


def settings_of(conf: Path, overrides: list[str]) -> Settings:
    """The settings of a command line, checked, without a run.

    Args:
        conf: the directory of the YAML files.
        overrides: as typed.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    try:
        return _parsed(_composed(conf, overrides))
    except HydraException as error:
        raise composition_error(error) from error


def _composed(conf: Path, overrides: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        return hydra.compose("config", overrides, return_hydra_config=True)


def _help(conf: Path, overrides: list[str]) -> str:
    """What `--help` prints; Hydra itself takes two seconds for it, since it lists its own groups, too."""
    composed = _composed(conf, overrides)
    text = str(composed.hydra.help.template)
    settings = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    groups = config_store.option_names(conf)
    return string.Template(text).substitute(
        APP_CONFIG_GROUPS="\n".join(f"{group}: {', '.join(names)}" for group, names in groups.items()),
        CONFIG=OmegaConf.to_yaml(settings),
    )


def _run(composed: DictConfig) -> float | None:
    """One run, or one job of a sweep; returns its last test accuracy, which a Hydra sweeper may optimise."""
    hydra_config = HydraConfig.get()
    overrides, output = list(hydra_config.overrides.task), Path(hydra_config.runtime.output_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        from mlp_tape.sweeps import job

        sweep = Path(hydra_config.sweep.dir)
        folder = os.path.relpath(output, sweep).removeprefix(".")
        return job.run(_parsed(composed), sweep, hydra_config.job.num, overrides, folder)
    settings = _settings(composed, overrides)
    from mlp_tape.runs.run import execute_run

    try:
        return execute_run(settings, output, overrides)
    except Exception as error:
        run_record.forget(output)
        if WITH_TRACEBACK or signals.received():
            raise
        sys.exit(report_error(error))


class CheckSettings(Callback):
    """Refuses wrong settings before Hydra has made a directory, and opens the run of a sweep.

    Hydra turns an Exception of a callback into a warning, hence SystemExit.
    """

    around = contextlib.ExitStack()  # what is closed after a sweep's last job, however it ends
    sweeping = False  # whether a sweep's jobs have begun
    may_leave_at_once = True
    resumed: Path | None = None  # the directory of the run that is gone on with

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks the settings of a run, and finds the one to go on with."""
        settings = _refuse_if_wrong(config)
        try:
            if settings.sweep.resume is not None:
                raise ConfigError(
                    "sweep.resume=... picks up a sweep", "type it with -m; for a run, resume=..."
                )
            if settings.resume is None:
                return
            CheckSettings.resumed = resume.find(settings.resume, resolve_uri(settings.tracking))
            _settings(config, list(config.hydra.overrides.task))
        except MlpTapeError as error:
            sys.exit(report_error(error))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks every value that a sweep names, and opens its run."""
        try:
            jobs, planned = multirun.check(config, _parsed)
            directory = multirun.settle_directory(config, jobs[0])
            CheckSettings.may_leave_at_once = multirun.prepare(config, CheckSettings.around)
            from mlp_tape.sweeps import sweep

            data = list(dict.fromkeys(settings.dataset for settings in jobs))
            typed = multirun.typed(config)
            here = multirun.launcher(config) == multirun.IN_THIS_PROCESS
            ready = tensorflow_setup.import_tensorflow if here else lambda: None
            around = sweep.opened(jobs[0], directory, typed, data, planned, ready)
            CheckSettings.around.enter_context(around)
        except Exception as error:
            if WITH_TRACEBACK or signals.received():
                raise
            sys.exit(report_error(composition_error(error) if isinstance(error, HydraException) else error))
        CheckSettings.sweeping = True


def _refuse_if_wrong(composed: DictConfig) -> Settings:
    try:
        return _parsed(composed)
    except ConfigError as error:
        sys.exit(report_error(error))


def _parsed(composed: DictConfig) -> Settings:
    """The settings, without Hydra's own."""
    if "hydra" in composed:
        composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    return validation.parse(composed)


def _settings(composed: DictConfig, overrides: list[str]) -> Settings:
    """The settings as typed, or those of the run that is gone on with."""
    settings = _parsed(composed)
    if CheckSettings.resumed is None:
        return settings
    typed = OverridesParser.create().parse_overrides(overrides)
    names = resume.typed_keys(override.key_or_group for override in typed)
    return resume.settings(CheckSettings.resumed, settings, names)
