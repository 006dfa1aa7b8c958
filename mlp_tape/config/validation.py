"""Validation of the config that Hydra composes, with error messages that suggest a correction."""

import contextlib
import importlib.util
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlp_tape.config import suggestions
from mlp_tape.config.constraints import default_of
from mlp_tape.config.settings import (
    PATHS,
    RESERVED_TAGS,
    RULE_SETTINGS,
    SCHEDULE_SETTINGS,
    TAG,
    TEXTS,
    Settings,
    flatten,
    format_value,
    groups,
    non_null,
    options,
)
from mlp_tape.errors import ConfigError
from mlp_tape.system import program


def parse(config: DictConfig, is_job: bool = False) -> Settings:
    """Validates a config and converts it to settings.

    `dataset.path` is made absolute, relative to the current directory.

    Args:
        config: config composed by Hydra; its node `hydra` is ignored.
        is_job: whether the settings are those of a job of a sweep, which may hold out validation images.

    Raises:
        ConfigError: a key is unknown, or a value is missing, of the wrong type or out of range. The message
            contains the key, the value and what was expected.
    """
    try:
        given = {str(key): _plain(config[key]) for key in config if key != "hydra"}
    except OmegaConfBaseException as error:
        raise _unresolved(error) from error
    settings: Settings = _build(Settings, given, prefix="")
    _check_keywords("optimizer", settings.optimizer, RULE_SETTINGS)
    _check_keywords("schedule", settings.schedule, SCHEDULE_SETTINGS)
    _check_validation(settings, is_job)
    if settings.tracking.system_metrics and importlib.util.find_spec("psutil") is None:
        raise ConfigError(
            "tracking.system_metrics=true requires psutil, which is not installed",
            f"run {program.install('system')}, or type tracking.system_metrics=false",
        )
    return settings


def _check_validation(settings: Settings, is_job: bool) -> None:
    """Raises ConfigError if settings require validation images, and there are none."""
    sweep, fraction = settings.sweep, settings.validation_fraction
    if sweep.choose_by and sweep.objectives:
        raise ConfigError(
            f"sweep.choose_by={sweep.choose_by} and sweep.objectives exclude each other",
            f"type sweep.objectives={format_value(sweep.objectives)} or sweep.choose_by={sweep.choose_by}",
        )
    if settings.dataset.path is not None or "." in settings.dataset.name:
        return  # the data may have validation images of their own
    if settings.stopping.patience is not None and not fraction and (fraction == 0 or not is_job):
        raise ConfigError(
            f"stopping.patience={settings.stopping.patience} requires validation images",
            f"type stopping.patience={settings.stopping.patience} validation_fraction=0.1",
        )
    chosen_by = [key for key in (sweep.choose_by, *sweep.objectives) if key and key.startswith("validation/")]
    if chosen_by and fraction == 0 and is_job:
        raise nothing_to_choose_by(chosen_by[0])


def nothing_to_choose_by(metric: str) -> ConfigError:
    """Returns the error for a job without validation images that is to be chosen by a metric on them."""
    return ConfigError(
        f"{metric} requires validation images, and validation_fraction=0 leaves none",
        "leave out validation_fraction, or type sweep.choose_by=test/accuracy",
    )


def _plain(value: Any) -> Any:
    """Returns a value of a config, with interpolations resolved."""
    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return value


def _check_keywords(group: str, settings: Any, known: dict[str, tuple[str, ...]]) -> None:
    """Raises ConfigError if a rule or schedule has a setting that it does not use, or lacks one."""
    given, name = non_null(settings), settings.name
    if name not in known:  # a user's function, whose settings are unknown
        return
    common = {rule.name for rule in fields(settings) if rule.metadata["by_option"] is None}
    for key in given:
        if key not in common and key not in known[name]:
            raise of_other_options(f"{group}.{key}", format_value(given[key]), {group: name})
    for key in known[name]:
        if key not in given:
            raise ConfigError(f"{group}.{key} has no value, but {name} requires it", f"type {group}={name}")


def _unresolved(error: OmegaConfBaseException) -> ConfigError:
    """Returns the error for an interpolation that has no value."""
    key = " ".join((error.full_key or "").split())
    rule = dict(suggestions.rules()).get(key)
    correction = (
        f"type a value for it, such as {key}={_default(key, rule)}" if rule else "type a value for it"
    )
    variable = re.search(r"Environment variable '([^']+)' not found", str(error))
    if variable:
        return ConfigError(
            f"{key}: the environment variable {variable[1]} is not set", f"set it, or {correction}"
        )
    return ConfigError(f"{key}: {str(error).splitlines()[0]}", correction)


def _build(kind: type, given: dict[Any, Any], prefix: str) -> Any:
    rules = {rule.name: rule for rule in fields(kind)}
    types = get_type_hints(kind)
    for name, value in given.items():
        if name not in rules:
            raise unknown_key(f"{prefix}{name}", format_value(value))
    for name, rule in rules.items():
        if name not in given and rule.default is not None:
            key, default = f"{prefix}{name}", _default(name, rule)
            correction = f"leave out ~{key}" if default == "..." else f"type {key}={default}"
            raise ConfigError(f"{key} has no value", f"every setting needs one; {correction}")
    values = {}
    for name, value in given.items():
        key = f"{prefix}{name}"
        if is_dataclass(types[name]):
            if not isinstance(value, dict):
                raise ConfigError(
                    f"{key}={format_value(value)}: expected a group of settings",
                    f"type one of its settings, such as {key}.{fields(types[name])[0].name}=...",
                )
            values[name] = _build(types[name], value, prefix=f"{key}.")
        else:
            values[name] = _checked(key, value, types[name], rules[name])
    return kind(**values)


def _checked(key: str, given: Any, kind: Any, rule: Field[Any]) -> Any:
    """Returns a value, converted to its type; raises ConfigError if it is not valid."""
    value, is_valid = _converted(key, given, kind, rule)
    if not is_valid:
        raise _not_valid(key, rule, format_value(given))
    return value


def _converted(key: str, value: Any, kind: Any, rule: Field[Any]) -> tuple[Any, bool]:
    """Returns a value, converted to its type, and whether it is valid."""
    if kind in (float, float | None) and type(value) is int:
        value = float(value) if abs(value) < 2**1023 else math.inf
    elif kind in (str, str | None) and type(value) in (int, float):
        value = str(value)
    elif kind == dict[str, str] and type(value) is dict:
        value = dict(_tags(value))
    elif type(value) is str and re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?", value, re.I):
        value = _number(value, kind)
    if not _fits(value, kind) or (value is not None and not rule.metadata["check"](value)):
        return value, False
    if key in PATHS and value is not None:
        value = with_home(value)
    if key == "dataset.path" and value is not None:
        value = str(Path(value).absolute())
    return value, True


def with_home(path: str) -> str:
    """Returns a path in which `~` is replaced by a home directory, if there is one."""
    return os.path.expanduser(path)  # noqa: PTH111, as Path.expanduser fails for the name of a file such as ~a


def _tags(given: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields name and text of each tag; the name of a nested one contains dots.

    Raises:
        ConfigError: a tag is not one that MLflow accepts, or is written by MLflow or by this program.
    """
    for key, value in given.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _tags(value, f"{name}.")
            continue
        text = value if isinstance(value, str) else format_value(value)
        what = f"tags.{name}={text}"
        if re.match(RESERVED_TAGS, name) or name in dict(flatten(Settings())):  # a param that has changed
            raise ConfigError(
                f"{what}: MLflow or this program writes the tag {name}",
                f"type another name, such as tags.my_{re.sub(r'[^a-z]', '_', name)}={text}",
            )
        if (
            not re.fullmatch(r"[\w\-. :/]{1,250}", name)
            or posixpath.normpath(name) != name
            or name[0] in "./"
        ):
            raise ConfigError(
                f"{what}: the name of a tag consists of up to 250 letters, digits and _-.:/",
                "type for example tags.team=x",
            )
        if isinstance(value, list) or value is None or not 0 < len(text) <= TAG:
            raise ConfigError(
                f"{what}: expected a text of up to {TAG:,} characters, or a number",
                f"type for example tags.{name}=x",
            )
        yield name, text


def _not_valid(key: str, rule: Field[Any], value: str) -> ConfigError:
    users = rule.metadata["by_option"]  # the first of them is chosen, as far as the correction is concerned
    chosen = {key.partition(".")[0]: next(iter(users))} if users else {}
    return ConfigError(
        f"{key}={value}: expected {rule.metadata['expected']}",
        f"type for example {' or '.join(suggestions.commands(key, value, chosen, accepts))}",
    )


def of_another_kind(key: str, value: str) -> ConfigError:
    """Returns the error for a value that cannot replace the default, such as a dictionary for a list."""
    rule = dict(suggestions.rules()).get(key)
    if rule is None:
        return ConfigError(f"{key}={value}: expected another kind of value", f"see {program.train()} --help")
    return _not_valid(key, rule, value)


def _number(text: str, kind: Any) -> Any:
    """Returns a number for a setting that takes one, such as a value from an environment variable."""
    for number in (int, float):
        if kind in (number, number | None):
            with contextlib.suppress(ValueError):
                return number(text)
    return text


def _default(name: str, rule: Field[Any]) -> str:
    """Returns the default of a setting, or the first option of a group, as it is typed."""
    value = default_of(rule)
    if is_dataclass(value):
        return next(iter(options(name)), "...")
    by_option = rule.metadata["by_option"]
    return format_value(next(iter(by_option.values())) if by_option else value)


def _fits(value: Any, kind: Any) -> bool:
    """Returns whether a value is of a type; a bool is not an int, and a number is not a string."""
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return isinstance(value, list) and all(_fits(each, item) for each in value)
    if get_origin(kind) is dict:  # its items have been checked
        return isinstance(value, dict)
    if get_args(kind):
        return any(_fits(value, option) for option in get_args(kind))
    return type(value) is kind


def accepts(key: str, typed: str) -> bool:
    """Returns whether a setting accepts a value as it is typed; False if there is no such setting."""
    rule, (group, _, name) = dict(suggestions.rules()).get(key), key.rpartition(".")
    is_number_of_python = not typed.isascii() and key not in TEXTS  # Hydra knows no other digits
    if rule is None or not typed.strip() or is_number_of_python:
        return False
    try:
        value = _plain(OmegaConf.create(f"typed: {typed}").typed)
        kind = get_type_hints(groups()[group] if group else Settings)[name]
        return _converted(key, value, kind, rule)[1]
    except Exception:  # of the parser of YAML, or the ConfigError of a tag
        return False


def of_other_options(key: str, value: str, chosen: Mapping[str, str]) -> ConfigError:
    """Returns the error for a setting that the chosen option of its group does not use.

    Args:
        key: the setting.
        value: its value as typed.
        chosen: option of each group, as far as it is known.
    """
    group, users = key.partition(".")[0], dict(suggestions.rules())[key].metadata["by_option"]
    other = f"not a setting of {chosen[group]}, but of" if group in chosen else "a setting of"
    return ConfigError(
        f"{key} is {other} {' and '.join(f'{group}={name}' for name in users)}",
        f"type {suggestions.commands(key, value, chosen, accepts)[0]}",
    )


def unknown_key(
    key: str, value: str = "", chosen: Mapping[str, str] | None = None, removed: bool = False
) -> ConfigError:
    """Returns the error for an unknown key, with what to type for the most similar known ones.

    Args:
        key: the key.
        value: its value as typed; empty if it is not known.
        chosen: option of each group, as far as it is known.
        removed: whether the command line removes the key.
    """
    chosen, known = chosen or {}, dict(suggestions.rules())
    if removed:
        return ConfigError(f"{key} was removed by ~{key}", f"leave out ~{key}")
    if key in known and known[key].metadata["by_option"]:
        return of_other_options(key, value, chosen)
    near = suggestions.meant(key, value, accepts)
    correct = [line for name in near for line in suggestions.commands(name, value, chosen, accepts)]
    if key in suggestions.ADDED and key in near:
        return ConfigError(f"{key} is not in the defaults list, and needs a plus sign", f"type {correct[0]}")
    if correct:
        return ConfigError(f"unknown setting: {key}", f"did you mean {' or '.join(correct)} ?")
    group = key.rpartition(".")[0]
    if group in groups():
        names = ", ".join(name for name in known if name.startswith(f"{group}."))
        return ConfigError(f"unknown setting: {key}", f"the settings of {group} are {names}")
    return ConfigError(f"unknown setting: {key}", f"{program.train()} --help lists the settings")
