"""The command line as typed: Hydra's options and the overrides."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from mlp_tape.cli import free_text, hydra_internals, search_options
from mlp_tape.config import suggestions, validation
from mlp_tape.config.settings import Settings
from mlp_tape.errors import ConfigError
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.sweeps.plan import is_of_a_sweep
from mlp_tape.system import program
from mlp_tape.system.redaction import without_password

URI = "MLFLOW_TRACKING_URI"

# Hydra's options that select configs, by the name of the option's value in the parsed arguments.
CONFIG_OPTIONS = {
    "config_path": "--config-path",
    "config_name": "--config-name",
    "config_dir": "--config-dir",
}


@dataclass(frozen=True)
class CommandLine:
    """A command line.

    Attributes:
        config: options that select configs, each in the form `--config-dir=DIRECTORY`, as typed.
        others: Hydra's other options in their long form, such as `--multirun`.
        overrides: overrides as typed, with paths and other texts quoted for Hydra.
    """

    config: list[str]
    others: list[str]
    overrides: list[str]

    @property
    def is_multirun(self) -> bool:
        """Whether it has the option -m or --multirun."""
        return "--multirun" in self.others

    @property
    def asks_for_help(self) -> bool:
        """Whether it has the option -h or --help."""
        return "--help" in self.others

    def arguments(self, root: Path) -> list[str]:
        """Returns the arguments for Hydra, with all overrides in one sequence, as argparse requires.

        Args:
            root: directory above the configs. A relative --config-path that does not exist in the current
                directory is relative to it.
        """
        overrides = map(search_options.in_full, self.overrides)
        return [*(_absolute_path(option, root) for option in self.config), *self.others, *overrides]

    def check_directories(self) -> None:
        """Raises ConfigError if a directory of configs does not exist, which Hydra may not notice."""
        found = [tuple(option.split("=", 1)) for option in self.config if option.startswith("--config-dir=")]
        for text in self.overrides:
            if key(text) == "hydra.searchpath":
                given = OverridesParser.create().parse_override(text).value()
                places = given if isinstance(given, list) else [given]
                found += [("hydra.searchpath", str(place)) for place in places]
        for name, place in found:
            check_directory(name, place)

    def of_a_run(self) -> Command:
        """Returns what repeats a run."""
        return Command(self.config, [text for text in self.overrides if not is_of_a_sweep(text)])

    def of_a_sweep(self, is_multirun_by_config: bool) -> Command:
        """Returns what repeats a sweep; the argument is as in `Command`."""
        omitted = ("sweep.resume", "hydra.sweep.dir", "hydra.mode")
        kept = [text for text in self.overrides if key(text) not in omitted]
        return Command(self.config, kept, is_multirun_by_config)


def parse(arguments: Sequence[str]) -> CommandLine:
    """Parses the arguments of the program; options and overrides may be in any order.

    `--lr 0.01`, to which `mlflow run -P lr=0.01` leads, means `lr=0.01`.

    Raises:
        ConfigError: an option is unknown or incomplete; argparse would print all options.
    """

    def reject(message: str) -> NoReturn:
        option = re.match(r"unrecognized arguments: --([\w.]+)=?(\S*)", message)
        if option and "did you mean" in (error := validation.unknown_key(option[1], option[2])).hint:
            raise error
        problem = message.replace("unrecognized arguments", "unknown option")
        raise ConfigError(problem, f"{program.train()} --help and --hydra-help list the options")

    parser = hydra_internals.arguments_parser()
    if parser is None:
        overrides = [text for text in arguments if not text.startswith("-")]
        return CommandLine([], [text for text in arguments if text.startswith("-")], overrides)
    parser.error = reject  # type: ignore[method-assign]
    parsed = parser.parse_intermixed_args(_without_options_for_settings(arguments))
    config = [
        f"{option}={value}" for name, option in CONFIG_OPTIONS.items() if (value := getattr(parsed, name))
    ]
    given = {name: value for name, value in vars(parsed).items() if value and name not in CONFIG_OPTIONS}
    overrides = free_text.as_typed(given.pop("overrides", []), "multirun" in given)
    options = {f"--{name.replace('_', '-')}": value for name, value in given.items()}
    others = [option if value is True else f"{option}={value}" for option, value in options.items()]
    return CommandLine(config, others, overrides)


def _without_options_for_settings(arguments: Sequence[str]) -> list[str]:
    """Replaces options that set a setting, such as `--lr 0.01`, by overrides."""
    roots = {rule.name for rule in dataclasses.fields(Settings)} | {*suggestions.ADDED, "hydra"}
    replaced, left = list[str](), list(arguments)
    while left:
        text = left.pop(0)
        name, sign, value = text.removeprefix("--").partition("=")
        is_setting = text.startswith("--") and re.split("[./]", name)[0] in roots
        if is_setting and (sign or left):
            plus = "+" if name in suggestions.ADDED else ""
            replaced.append(f"{plus}{name}={value if sign else left.pop(0)}")
        else:
            replaced.append(text)
    return replaced


def without_secrets(line: CommandLine) -> CommandLine:
    """Returns the command line for Hydra; a tracking URI with a password is moved to the environment.

    Hydra and its launchers write overrides to files, such as `multirun.yaml`, before the first job starts.
    """
    overrides = list(line.overrides)
    for i, text in enumerate(overrides):
        name, _, value = text.partition("=")
        if name.lstrip("+") == "tracking.uri" and without_password(value) != value:
            with contextlib.suppress(HydraException):  # raised again when Hydra parses the command line
                override = OverridesParser.create().parse_override(text)
                if not override.is_sweep_override():
                    os.environ[URI] = str(override.value())
                    overrides[i] = f"{name}=${{oc.env:{URI}}}"
    return dataclasses.replace(line, overrides=overrides)


def _absolute_path(option: str, root: Path) -> str:
    name, _, value = option.partition("=")
    if name != "--config-path" or "://" in value:
        return option
    return f"{name}={Path(value).absolute() if Path(value).is_dir() else root / value}"


def check_directory(name: str, place: str) -> None:
    """Raises ConfigError if the value of an option is no directory of configs.

    Args:
        name: name of the option or setting.
        place: a path, `file://` and a path, or another URL, which is not checked.
    """
    path = Path(place.removeprefix("file://"))
    if not place.startswith("pkg:") and "://" not in str(path) and not path.is_dir():
        raise ConfigError(
            f"{name}={place}: there is no directory {path.absolute()}",
            "create it, or type the path of one that exists",
        )


def resumed(recorded: RunRecord, typed: CommandLine) -> CommandLine:
    """Returns the command line that a sweep recorded, changed by what was typed to resume it.

    What is typed replaces what is recorded for the same setting or option, or is added to it.

    """
    replaced = {option.partition("=")[0] for option in typed.config}
    config = [option for option in recorded.options if option.partition("=")[0] not in replaced]
    keys = {key(text) for text in typed.overrides}
    kept = [text for text in recorded.overrides if key(text) not in keys and "***@" not in text]
    return CommandLine([*config, *typed.config], typed.others, [*kept, *typed.overrides])


def quoted(text: str) -> str:
    """Returns any text as a quoted value in Hydra's override grammar, with its interpolations."""
    mark = '"' if '"' not in text else "'"
    return mark + re.sub(rf"(\\*)({mark}|\Z)", lambda end: end[1] * 2 + (end[2] and f"\\{mark}"), text) + mark


def key(text: str) -> str:
    """Returns the setting or group that an override concerns, without the prefixes `+`, `++` and `~`."""
    text = search_options.in_full(text)
    try:
        override: Override = OverridesParser.create().parse_override(text)
    except HydraException:  # reported when Hydra parses the command line
        return text.partition("=")[0].lstrip("+~")
    return override.get_key_element().lstrip("+~")
