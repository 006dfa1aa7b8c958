"""Error messages of the command line: what is wrong, and what to type instead."""

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from mlp_tape.cli import multirun, search_options
from mlp_tape.cli.command_line import quoted
from mlp_tape.cli.tools import COMMANDS as TOOLS
from mlp_tape.config import suggestions, validation
from mlp_tape.config.settings import TEXTS, format_value, is_description
from mlp_tape.errors import ConfigError, DiskError, MlpTapeError
from mlp_tape.system import program, spelling, user_functions
from mlp_tape.system.redaction import without_password


def report_error(error: Exception) -> int:
    """Prints an error in two lines, the problem and a correction, and returns its exit code."""
    if isinstance(error, OSError) and error.strerror:
        first = "" if isinstance(error, PermissionError) else "free some space, or "
        error = DiskError(
            f"{error.strerror}: {error.filename or 'the disk'}",
            f"{first}start the program in another directory",
        )
    if not isinstance(error, MlpTapeError):
        error = user_functions.failure(error) or MlpTapeError(
            f"{type(error).__name__}: {error}", "set HYDRA_FULL_ERROR=1 before the command to see a traceback"
        )
    print(without_password(f"error: {error.what}\n       {error.hint}"), file=sys.stderr)
    return error.exit_code


def composition_error(
    error: Exception, overrides: Sequence[str], choose: Callable[[list[str]], Mapping[str, str]]
) -> ConfigError:
    """Returns a ConfigError with a correction, for an error that Hydra raised before the run started.

    Args:
        error: the error.
        overrides: overrides of the command line.
        choose: returns the option of each group that overrides select.
    """
    first, *rest = str(error).splitlines() or [type(error).__name__]
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, OverrideParseException):
        key, sign, value = (error.override or "").lstrip("+").partition("=")
        if sign and not _is_valid(f"{key}=1") and key.strip("'\"") == key:
            return validation.unknown_key(key, value, _chosen(overrides, choose))
        hint = _quoted(error.override or "")
        if key in dict(suggestions.rules()) and key not in TEXTS and "${" not in value and "(" not in value:
            hint = validation.of_another_kind(key, value).hint
        return ConfigError(f"cannot parse {error.override}: {first}", hint)
    unknown = re.match(r"Could not override '([^']+)'", first)
    if unknown:
        full_key = str(getattr(error.__cause__, "full_key", None) or "")
        in_dictionary = full_key.startswith(f"{unknown[1]}.")  # typed as a value, such as stopping={x:1}
        return _unknown_key(full_key if in_dictionary else unknown[1], overrides, choose)
    of_another_kind = re.match("Error merging override ([^=]+)=(.*)", first)
    if of_another_kind:
        return validation.of_another_kind(of_another_kind[1].lstrip("+"), of_another_kind[2])
    removed = re.match(r"Could not delete from config. '([^']+)' does not exist", first)
    if removed:
        return ConfigError(f"{removed[1]} has no value that could be removed", f"leave out ~{removed[1]}")
    if first.startswith("Config group override must be"):
        return _no_option(first, overrides)
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


def _no_option(what: str, overrides: Sequence[str]) -> ConfigError:
    """Returns the error for a group whose option is a number, a dictionary or nothing."""
    known = suggestions.all_options()
    group = next((name for text in overrides if (name := text.lstrip("+").partition("=")[0]) in known), None)
    if group in suggestions.ADDED and any(text.startswith(f"{group}=") for text in overrides):
        return validation.unknown_key(group, next(filter(None, (_typed(group, text) for text in overrides))))
    option = f"{group}={known[group][0]}" if group else "dataset=digits"
    return ConfigError(
        what, f"type an option of the group, such as {option}; {program.train()} --help lists them"
    )


def _params_of_no_config(override: str) -> ConfigError:
    key, _, value = override.lstrip("+").partition("=")
    name = key.removeprefix("hydra.sweeper.params").removeprefix(".")
    unquoted = value[1:-1] if re.fullmatch(r"'.*'|\".*\"", value) else value
    return ConfigError(
        f"{key}: no config of this command has hydra.sweeper.params",
        f"type {shlex.quote(f'{name}={unquoted}') if name else 'values on the command line: lr=0.1,0.2'}",
    )


def _missing_config(error: MissingConfigException) -> ConfigError:
    """Returns the error for an option of a group, or a primary config, that does not exist."""
    extra = multirun.EXTRAS.get(str(error.missing_cfg_file))
    if extra:
        return ConfigError(f"{error.missing_cfg_file} is not installed", program.install(extra))
    if not error.options:
        return _missing_primary_config(error)
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    near = spelling.closest(option, error.options) or error.options[:1]
    plus = "+" if group in suggestions.ADDED else ""
    group = next((short for short, full in search_options.SHORT.items() if full == group), group)
    return ConfigError(
        f"{group}={option}: expected one of: {', '.join(error.options)}",
        f"type for example {' or '.join(f'{plus}{group}={name}' for name in near)}",
    )


def _missing_primary_config(error: MissingConfigException) -> ConfigError:
    name = error.missing_cfg_file
    return ConfigError(
        f"there is no config {name} in conf" if name else str(error).splitlines()[0],
        "type --config-name=config or --config-dir=DIRECTORY with the directory that has the config",
    )


def _unknown_key(
    key: str, overrides: Sequence[str], choose: Callable[[list[str]], Mapping[str, str]]
) -> ConfigError:
    """Returns the error for an unknown key, which may be one of Hydra's."""
    full = map(search_options.in_full, overrides)
    value = next(filter(None, (_typed(key, text) for text in full)), "")
    if key.startswith("hydra.launcher."):
        return ConfigError(
            f"the launcher has no setting {key}",
            f"type hydra/launcher=joblib {key}={value} for parallel jobs",
        )
    if key.startswith(("hydra.sweeper.", "hydra/sweeper/")):
        return _unknown_of_sweeper(key, value, overrides)
    if key.startswith("hydra."):
        listed = f"{program.train()} --hydra-help lists Hydra's settings"
        return ConfigError(f"unknown setting: {key}", listed)
    of_search = [name for name in search_options.SHORT if spelling.difference(key, name) is not None]
    if of_search:
        return ConfigError(f"unknown setting: {key}", f"did you mean {of_search[0]}={value} ?")
    removed = any(text.partition("=")[0] == f"~{key}" for text in overrides)
    return validation.unknown_key(key, value, _chosen(overrides, choose), removed)


def _unknown_of_sweeper(key: str, value: str, overrides: Sequence[str]) -> ConfigError:
    """Returns the error for a setting that the sweeper does not have, as it is not a search for example."""
    short = key[len("hydra.sweeper.") :]
    typed = short if f"{short}={value}" in overrides else key
    is_search = any(map(search_options.selects, overrides))
    if is_search or (short.partition(".")[0] not in search_options.SHORT and short != "max_batch_size"):
        return search_options.unknown(key, value)
    return ConfigError(
        f"{typed}={value} is a setting of a search", f"type -m hydra/sweeper=optuna {typed}={value}"
    )


def _typed(key: str, override: str) -> str:
    """Returns the value that an override gives to a key, as typed; empty if it concerns another one."""
    name, _, value = override.partition("=")
    if name.lstrip("+") == key:
        return value
    below = key.removeprefix(f"{name.lstrip('+')}.")
    if below == key or not _is_valid(override):
        return ""
    given: Any = OverridesParser.create().parse_override(override).value()
    for part in below.split("."):
        given = given.get(part) if isinstance(given, dict) else None
    return "" if given is None else format_value(given)


def _chosen(overrides: Sequence[str], choose: Callable[[list[str]], Mapping[str, str]]) -> Mapping[str, str]:
    """Returns the option of each group that the command line selects; none if one of them is unknown."""
    selecting = [text for text in overrides if "." not in text.partition("=")[0] and "=" in text]
    groups = [text for text in selecting if text.lstrip("+").partition("=")[0] in suggestions.all_options()]
    try:
        return choose(groups)
    except (HydraException, MlpTapeError):
        return {}


def _quoted(override: str) -> str:
    """Returns how to type an override that Hydra cannot parse, with quotes for Hydra and for the shell."""
    unquoted = re.sub(r"""^(['"])(.+)\1$""", r"\2", re.sub(r"""^(['"])([\w.]+)\1=""", r"\2=", override))
    if unquoted != override and _is_valid(unquoted):
        return f"type {shlex.quote(unquoted)}"
    key, sign, value = override.partition("=")
    if not sign:
        tools = spelling.closest(key, list(TOOLS))
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
