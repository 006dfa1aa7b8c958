"""The command line: Hydra composes the settings, they are validated, and errors become exit codes."""

import contextlib
import contextvars
import functools
import os
import secrets
import string
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mlp_tape.cli import (
    command_line,
    composition,
    config_store,
    free_text,
    multirun,
    planner,
    search_options,
    search_plan,
    sweeper,
)
from mlp_tape.cli.command_line import CommandLine
from mlp_tape.cli.messages import composition_error, report_error
from mlp_tape.config import validation
from mlp_tape.config.settings import Settings, TrackingSettings, format_value
from mlp_tape.errors import ConfigError, MlpTapeError
from mlp_tape.reports import plot_process
from mlp_tape.runs import resume
from mlp_tape.storage import run_record
from mlp_tape.sweeps.plan import TRACEBACK
from mlp_tape.system import exit, program, signals, tensorflow_setup, timeline
from mlp_tape.tracking import client_process
from mlp_tape.tracking.uri import resolve_uri

WITH_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")


@dataclass
class Invocation:
    """State of one call of the program, which `main` shares with the callback that Hydra creates.

    Attributes:
        conf: directory of the YAML files.
        line: the command line; that of a resumed sweep includes what the sweep recorded.
        sweep: what is open during a sweep, such as its MLflow run; closed after its last job.
        sweeping: whether the jobs of a sweep have begun.
        runs_exit_handlers: whether the process runs the exit handlers of other packages before it ends.
        resumed: directory of the run to resume; None for a new run.
    """

    conf: Path
    line: CommandLine
    sweep: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    sweeping: bool = False
    runs_exit_handlers: bool = False
    resumed: Path | None = None


_invocation = contextvars.ContextVar[Invocation]("invocation")


def _run_directory(new: str) -> str:
    """Returns the directory of a run: that of the run to resume, else a new one."""
    invocation = _invocation.get(None)
    return str(invocation.resumed) if invocation and invocation.resumed else new


config_store.register()
OmegaConf.register_new_resolver("mlp_tape.run_directory", _run_directory, replace=True)
# Distinguishes the directories of runs that start within the same second.
OmegaConf.register_new_resolver("mlp_tape.token", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def main() -> NoReturn:
    """Runs the command line and ends the process.

    The exit code is 0 on success, 1 if the run or a job failed, 2 if nothing was started because of an
    invalid command, and 130 or 143 after SIGINT or SIGTERM.
    """
    exit.own_temporary_directory()
    invocation = Invocation(program.conf(), CommandLine([], [], []))
    _invocation.set(invocation)
    code = _exit_code(invocation)
    with timeline.phase("end of MLflow's process"):
        client_process.stop_all()
    plot_process.stop()
    for text in timeline.report():
        print(text)
    if invocation.runs_exit_handlers:
        exit.leave_after_handlers(code)
    exit.leave(code)


def _exit_code(invocation: Invocation) -> int:
    """Runs the command line and returns the exit code."""
    conf = invocation.conf
    if WITH_TRACEBACK:
        os.environ[TRACEBACK] = "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors, instead of printing them and exiting
    code = 0
    try:
        line = invocation.line = _resumed_line(command_line.parse(sys.argv[1:]))
        line.check_directories()
        sys.argv[1:] = command_line.without_secrets(line).arguments(conf.parent)
        entry = hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(_run)
        if line.asks_for_help and not line.config:
            print(_help(conf, line.overrides))
            return 0
        timeline.begin("composition")
        with signals.on_signals(), invocation.sweep:
            entry()
    except BaseException as error:
        code = _report(error, is_own=invocation.sweeping or isinstance(error, MlpTapeError))
    # A signal may have ended the jobs of a sweep in other processes without an error in this one.
    signal = signals.received()
    return 128 + signal if signal else code


def _report(error: BaseException, is_own: bool) -> int:
    """Prints an error, unless that has been done, and returns the exit code.

    Args:
        error: the error.
        is_own: whether this package raised it; if not, Hydra did, while it composed or started the run.
    """
    if signals.received():
        return 0  # the exit code is that of the signal
    if isinstance(error, SystemExit):  # already printed
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if WITH_TRACEBACK or not isinstance(error, Exception):
        traceback.print_exception(error)
        return error.exit_code if isinstance(error, MlpTapeError) else 1 if is_own else ConfigError.exit_code
    if is_own:
        return report_error(error)
    invocation = _invocation.get()
    choose = functools.partial(composition.chosen, invocation.conf)
    return report_error(composition_error(error, invocation.line.overrides, choose))


def _resumed_line(typed: CommandLine) -> CommandLine:
    """Returns the command line; if it resumes a sweep, together with what the sweep recorded.

    Raises:
        ConfigError: the sweep to resume was not found, or a directory of its configs.
    """
    which = [free_text.value(text) for text in typed.overrides if command_line.key(text) == "sweep.resume"]
    if not which or not typed.is_multirun:
        return typed
    directory = resume.find(str(which[-1]), resolve_uri(TrackingSettings()), "sweep")
    return command_line.resumed(run_record.read(directory), typed)


def _help(conf: Path, overrides: list[str]) -> str:
    """Returns the text of `--help`. Hydra's own takes two seconds, since it lists Hydra's groups as well."""
    composed = composition.composed(conf, overrides)
    groups = config_store.option_names(conf)
    return string.Template(str(composed.hydra.help.template)).substitute(
        APP_CONFIG_GROUPS="\n".join(f"{group}: {', '.join(names)}" for group, names in groups.items()),
        CONFIG=OmegaConf.to_yaml(_without_hydra(composed)),
    )


def _run(composed: DictConfig) -> float | None:
    """Executes a run, or a job of a sweep, and returns its test accuracy, which a sweeper may optimize."""
    timeline.end("composition")
    hydra_config = HydraConfig.get()
    if hydra_config.job.chdir:  # relative paths are relative to the directory where the command was typed
        os.chdir(hydra_config.runtime.cwd)
    output = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        from mlp_tape.sweeps import job

        sweep = Path(hydra_config.sweep.dir)
        folder, overrides = os.path.relpath(output, sweep), planner.as_written(hydra_config.overrides.task)
        return job.run(
            validation.parse(composed, is_job=True), sweep, hydra_config.job.num, overrides, folder
        )
    line = _invocation.get().line
    settings = _resumed(validation.parse(composed), _invocation.get().resumed, line.overrides)
    from mlp_tape.runs.run import execute_run

    try:
        return execute_run(settings, output, line.of_a_run())
    except Exception as error:
        run_record.forget(output)
        sys.exit(_report(error, is_own=True))


def _check_verbose(config: DictConfig) -> None:
    """Raises ConfigError if `hydra.verbose` sets the level of log messages that are not printed anywhere."""
    if config.hydra.verbose and config.hydra.runtime.choices.get("hydra/job_logging") == "none":
        level = format_value(planner.as_written(config.hydra)["verbose"])
        raise ConfigError(
            f"hydra.verbose={level}: log messages of Python's logging are not printed",
            f"type hydra/job_logging=default hydra.verbose={level}",
        )


def _refuse_search(typed: list[str]) -> None:
    """Raises ConfigError if settings of a search were typed for a single run."""
    for text in typed:
        if search_options.is_typed(text):
            other = "" if any(map(search_options.selects, typed)) else " hydra/sweeper=optuna"
            raise ConfigError(f"{text} is part of a search", f"type {program.train()} -m{other} ...")


class CheckSettings(Callback):
    """Validates the settings before Hydra creates a directory, and opens the MLflow run of a sweep."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Validates the settings of a run, and finds the run to resume."""
        with _exit_on_error():
            _check_verbose(config)
            _refuse_search(_invocation.get().line.overrides)
            settings = validation.parse(config)
            if settings.sweep.resume is not None:
                raise ConfigError(
                    "sweep.resume=... resumes a sweep", "add -m, or type resume=... to resume a run"
                )
            if settings.resume is not None:
                directory = resume.find(settings.resume, resolve_uri(settings.tracking))
                _resumed(settings, directory, _invocation.get().line.overrides)
                _invocation.get().resumed = directory

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Validates every value of a sweep, and opens its run."""
        invocation = _invocation.get()
        with _exit_on_error():
            _check_verbose(config)
            multirun.check_plugins(config)
            loader = GlobalHydra.instance().config_loader()
            search = search_plan.parse(config, loader)
            choices = planner.choices(config, loader) if search is None else {}
            first_job = next(search.space.probes()) if search else planner.first(choices)
            first = validation.parse(loader.load_sweep_config(config, first_job), is_job=True)
            directory = multirun.set_directory(config, first)
            compose = multirun.composed_once(loader.load_sweep_config)
            plan = search.planned(config, compose) if search else planner.planned(config, choices, compose)
            timeline.end("composition")
            multirun.prepare_launcher(config, compose, invocation.sweep)
            launcher = multirun.launcher(config)
            in_this_process = launcher == multirun.IN_THIS_PROCESS
            invocation.runs_exit_handlers = not in_this_process and launcher != multirun.JOBLIB
            from mlp_tape.sweeps import sweep

            prepare = tensorflow_setup.import_tensorflow if in_this_process else lambda: None
            command = invocation.line.of_a_sweep(multirun.is_by_config(config, loader, first_job))
            opened = sweep.opened(plan, directory, command, prepare)
            plan = invocation.sweep.enter_context(opened)
            if search:
                sweeper.use(config, search.run(plan, directory, config, compose))
            elif plan.is_complete:
                batch = config.hydra.sweeper.get("max_batch_size")
                sweeper.use(config, sweeper.of_plan(plan.jobs, batch))
            invocation.sweeping = True


@contextlib.contextmanager
def _exit_on_error() -> Iterator[None]:
    """Reports an error and exits; Hydra would turn an exception of a callback into a warning."""
    try:
        yield
    except Exception as error:
        sys.exit(_report(error, is_own=not isinstance(error, HydraException)))


def _without_hydra(composed: DictConfig) -> DictConfig:
    if "hydra" not in composed:
        return composed
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def _resumed(settings: Settings, directory: Path | None, overrides: list[str]) -> Settings:
    """Returns the settings with which to resume a run, or the given settings for a new run.

    Args:
        settings: settings from the command line.
        directory: directory of the run to resume; None for a new run.
        overrides: overrides as typed on the command line.
    """
    if directory is None:
        return settings
    names = resume.typed_keys(command_line.key(text).partition("@")[0] for text in overrides)
    return resume.settings(directory, settings, names)
