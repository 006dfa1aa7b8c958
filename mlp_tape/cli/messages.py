"""Error messages of the command line: what is wrong, and what to type instead."""

import difflib
import re
import shlex
import sys

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from mlp_tape.cli import multirun
from mlp_tape.cli.command_line import quoted
from mlp_tape.cli.tools import COMMANDS as TOOLS
from mlp_tape.config import validation
from mlp_tape.config.settings import is_description
from mlp_tape.errors import ConfigError, DiskError, MlpTapeError
from mlp_tape.system import program
from mlp_tape.system.redaction import without_password


def report_error(error: Exception) -> int:
    """Prints an error in two lines, the problem and a correction, and returns its exit code."""
    if isinstance(error, OSError) and error.strerror:
        error = DiskError(
            f"{error.strerror}: {error.filename or 'the disk'}",
            "free some space, or start the program in another directory",
        )
    if not isinstance(error, MlpTapeError):
        error = MlpTapeError(
            f"{type(error).__name__}: {error}", f"HYDRA_FULL_ERROR=1 {program.train()} ... prints a traceback"
        )
    print(without_password(f"error: {error.what}\n       {error.hint}"), file=sys.stderr)
    return error.exit_code


def composition_error(error: Exception) -> ConfigError:
    """Returns a ConfigError with a correction, for an error that Hydra raised before the run started."""
    first, *rest = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, MissingConfigException) and str(error.missing_cfg_file) in multirun.EXTRAS:
        extra = multirun.EXTRAS[str(error.missing_cfg_file)]
        return ConfigError(f"{error.missing_cfg_file} is not installed", program.install(extra))
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        near = (difflib.get_close_matches(option, error.options, n=1) or error.options)[0]
        return ConfigError(
            f"{group}={option}: expected one of: {', '.join(error.options)}",
            f"type for example {'+' if group in validation.ADDED else ''}{group}={near}",
        )
    if isinstance(error, MissingConfigException):
        return _missing_primary_config(error)
    if isinstance(error, OverrideParseException):
        return ConfigError(f"cannot parse {error.override}: {first}", _quoted(error.override or ""))
    unknown = re.match(r"Could not override '([^']+)'", first)
    if unknown:
        full_key = getattr(error.__cause__, "full_key", None)  # of a dictionary, the key that is unknown
        if full_key and full_key != unknown[1]:
            return _unknown_key(str(full_key), "...")
        value = re.search(r"use \+[^=]+=(.*)", "\n".join(rest))
        return _unknown_key(unknown[1], value[1] if value else "...")
    of_another_kind = re.match("Error merging override ([^=]+)=(.*)", first)
    if of_another_kind:
        return validation.of_another_kind(of_another_kind[1].lstrip("+"), of_another_kind[2])
    removed = re.match(r"Could not delete from config. '([^']+)' does not exist", first)
    if removed:
        return ConfigError(f"{removed[1]} has no value that could be removed", f"leave out ~{removed[1]}")
    if first.startswith("Config group override must be"):
        return ConfigError(
            first, f"type an option of the group, such as dataset=digits; {program.train()} --help lists them"
        )
    params = [text for text in sys.argv if text.lstrip("+").startswith("hydra.sweeper.params")]
    if params and first.startswith(("Unexpected type", "Sweeping over Hydra", "'NoneType' object")):
        return _params_of_no_config(params[-1])
    ambiguous = re.match(r"Ambiguous value for argument '([^=]+)=(.*)'$", first)
    if ambiguous and is_description(ambiguous[1]):
        return ConfigError(first, f"type {shlex.quote(f'{ambiguous[1]}={quoted(ambiguous[2])}')}")
    if ambiguous:
        return ConfigError(first, f"to sweep over these values, type {program.train()} -m ...")
    if isinstance(error, OSError):
        return ConfigError(
            f"{type(error).__name__}: {first}", "start the program in a directory that you can write to"
        )
    return ConfigError(first, " ".join(rest).strip() or f"see {program.train()} --help")


def _params_of_no_config(override: str) -> ConfigError:
    key, _, value = override.lstrip("+").partition("=")
    name = key.removeprefix("hydra.sweeper.params").removeprefix(".")
    unquoted = value[1:-1] if re.fullmatch(r"'.*'|\".*\"", value) else value
    return ConfigError(
        f"{key}: no config of this command has hydra.sweeper.params",
        f"type {shlex.quote(f'{name}={unquoted}') if name else 'values on the command line: lr=0.1,0.2'}",
    )


def _missing_primary_config(error: MissingConfigException) -> ConfigError:
    name = error.missing_cfg_file
    return ConfigError(
        f"there is no config {name} in conf" if name else str(error).splitlines()[0],
        "type --config-name=config, or --config-dir=DIRECTORY with the directory that has the config",
    )


def _unknown_key(key: str, value: str) -> ConfigError:
    """Returns the error for an unknown key, which may be one of Hydra's."""
    if key.startswith("hydra.launcher."):
        return ConfigError(
            f"the launcher has no setting {key}",
            f"type hydra/launcher=joblib {key}={value} for parallel jobs",
        )
    if key.startswith("hydra."):
        return ConfigError(
            f"unknown setting: {key}", f"{program.train()} --hydra-help lists Hydra's settings"
        )
    return validation.unknown_key(key, value)


def _quoted(override: str) -> str:
    """Returns how to type an override that Hydra cannot parse, with quotes for Hydra and for the shell."""
    unquoted = re.sub(r"""^(['"])(.+)\1$""", r"\2", re.sub(r"""^(['"])([\w.]+)\1=""", r"\2=", override))
    if unquoted != override and _is_valid(unquoted):
        return f"type {shlex.quote(unquoted)}"
    key, sign, value = override.partition("=")
    if not sign:
        tools = difflib.get_close_matches(key, TOOLS, n=1)
        return f"type {program.tool()} {tools[0]}" if tools else f"type a value for it: {key}=..."
    listed = "," in value and not set(value) & set("[](){}'\"")
    items = value.split(",") if listed else [value]
    quoted = f"{key}={','.join(map(_quoted_item, items))}"
    if not _is_valid(quoted):
        return "quotes for Hydra go inside those for the shell: 'key=\"value\"'"
    return f"type {shlex.quote(quoted)}"


def _quoted_item(value: str) -> str:
    if _is_valid(f"key={value}"):
        return value
    return quoted(value)


def _is_valid(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
