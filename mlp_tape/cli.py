"""The command line: Hydra composes the settings, they are checked, and every error becomes an exit code."""

import contextlib
import os
import re
import secrets
import string
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mlp_tape import address, checking, courier, multirun, quiet, resume, stop
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
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(_help(conf, [text for text in sys.argv[1:] if not text.startswith("-")]))
            _leave_at_once(0)
        with stop.on_signals():
            sys.argv[1:] = multirun.as_recorded(sys.argv[1:])
            with CheckSettings.around:
                entry()
    except BaseException as error:
        signal = stop.asked()
        if signal:
            _leave_at_once(128 + signal)
        if WITH_TRACEBACK or not isinstance(error, Exception):
            raise
        told = CheckSettings.sweeping or isinstance(error, MlpTapeError)
        code = _tell(error if told else _before_the_start(error))
        _leave_at_once(code)
    signal = stop.asked()  # by which a sweep's jobs in other processes ended
    _leave_at_once(128 + signal if signal else 0)


def _help(conf: Path, overrides: list[str]) -> str:
    """What `--help` prints; Hydra itself takes two seconds for it, since it lists its own groups, too."""
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        composed = hydra.compose("config", overrides, return_hydra_config=True)
    text = str(composed.hydra.help.template)
    settings = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    groups = (path for path in sorted(conf.iterdir()) if path.is_dir() and path.name != "hydra")
    options = {path.name: ", ".join(sorted(file.stem for file in path.glob("*.yaml"))) for path in groups}
    return string.Template(text).substitute(
        APP_CONFIG_GROUPS="\n".join(f"{name}: {names}" for name, names in options.items()),
        CONFIG=OmegaConf.to_yaml(settings),
    )


def _leave_at_once(code: int) -> None:
    """Exits without the second that the interpreter takes to unload TensorFlow and MLflow.

    All files are closed by then, and MLflow has what it could be given; only a launcher of other packages'
    may have to see its processes off.
    """
    courier.see_off()
    if not CheckSettings.may_leave_at_once:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):  # the reader may have gone, as in `| head`
            stream.flush()
    os._exit(code)


def _run(composed: DictConfig) -> float | None:
    """One run, or one job of a sweep; returns its last test accuracy, which a Hydra sweeper may optimise."""
    hydra_config = HydraConfig.get()
    overrides, output = list(hydra_config.overrides.task), Path(hydra_config.runtime.output_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        from mlp_tape import job

        sweep = Path(hydra_config.sweep.dir)
        folder = os.path.relpath(output, sweep).removeprefix(".")
        return job.run(_parsed(composed), sweep, hydra_config.job.num, overrides, folder)
    settings = _settings(composed, overrides)
    from mlp_tape import runner

    try:
        return runner.run(settings, output, overrides)
    except Exception as error:
        if WITH_TRACEBACK or stop.asked():
            raise
        sys.exit(_tell(error))


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
            CheckSettings.resumed = resume.find(settings.resume, address.of(settings.tracking))
            _settings(config, list(config.hydra.overrides.task))
        except MlpTapeError as error:
            sys.exit(_tell(error))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Checks every value that a sweep names, and opens its run."""
        try:
            jobs, planned = multirun.check(config, _parsed)
            directory = multirun.settle_directory(config, jobs[0])
            CheckSettings.may_leave_at_once = multirun.prepare(config, CheckSettings.around)
            from mlp_tape import sweep

            data = list(dict.fromkeys(settings.dataset for settings in jobs))
            typed = multirun.typed(config)
            here = multirun.launcher(config) == multirun.IN_THIS_PROCESS
            ready = quiet.import_tensorflow if here else lambda: None
            around = sweep.opened(jobs[0], directory, typed, data, planned, ready)
            CheckSettings.around.enter_context(around)
        except Exception as error:
            if WITH_TRACEBACK or stop.asked():
                raise
            sys.exit(_tell(_before_the_start(error) if isinstance(error, HydraException) else error))
        CheckSettings.sweeping = True


def _refuse_if_wrong(composed: DictConfig) -> Settings:
    try:
        return _parsed(composed)
    except ConfigError as error:
        sys.exit(_tell(error))


def _parsed(composed: DictConfig) -> Settings:
    """The settings, without Hydra's own."""
    return checking.parse(OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"]))


def _settings(composed: DictConfig, overrides: list[str]) -> Settings:
    """The settings as typed, or those of the run that is gone on with."""
    settings = _parsed(composed)
    if CheckSettings.resumed is None:
        return settings
    typed = OverridesParser.create().parse_overrides(overrides)
    names = resume.typed_keys(override.key_or_group for override in typed)
    return resume.settings(CheckSettings.resumed, settings, names)


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
    if isinstance(error, MissingConfigException) and str(error.missing_cfg_file) in multirun.EXTRAS:
        extra = multirun.EXTRAS[str(error.missing_cfg_file)]
        return ConfigError(f"{error.missing_cfg_file} is not installed", f"pip install -e '.[{extra}]'")
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
        return checking.unknown_key(unknown[1])
    if first.startswith("Ambiguous value for argument"):
        return ConfigError(first, "to sweep over the values, type python run.py -m ...")
    if isinstance(error, OSError):
        return ConfigError(
            f"{type(error).__name__}: {first}", "start it in a directory that you can write to"
        )
    return ConfigError(first, " ".join(rest).strip() or "python run.py --help shows how")
