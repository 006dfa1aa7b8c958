"""Settings from overrides, and overrides from settings, also within a program that uses Hydra itself."""

import functools
import re
import threading
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from mlp_tape.cli import config_store, free_text, hydra_internals
from mlp_tape.cli.command_line import check_directory, quoted
from mlp_tape.cli.messages import composition_error
from mlp_tape.config import validation
from mlp_tape.config.settings import Settings, defaults_with, flatten, format_value, groups, options
from mlp_tape.errors import MlpTapeError

_composing = threading.Lock()  # Hydra's state is that of the process


def composed(conf: Path, overrides: list[str]) -> DictConfig:
    """Returns the config of a command line, with the node `hydra`.

    Args:
        conf: directory of the YAML files.
        overrides: overrides as typed on the command line.
    """
    with (
        _composing,
        hydra_internals.set_aside(),
        hydra.initialize_config_dir(str(conf), version_base="1.3"),
    ):
        config_store.register()
        return hydra.compose("config", overrides, return_hydra_config=True)


def settings_of(conf: Path, overrides: list[str], config_dir: Path | None = None) -> Settings:
    """Returns the validated settings of a command line, without starting a run.

    Args:
        conf: directory of the YAML files.
        overrides: overrides as typed on the command line.
        config_dir: directory of one's own configs, as for `--config-dir`.

    Raises:
        ConfigError: a setting is unknown or invalid, or there is no such directory.
    """
    if config_dir is not None:
        check_directory("--config-dir", str(config_dir))
        overrides = [_searchpath(config_dir), *overrides]
    try:
        return validation.parse(composed(conf, free_text.as_typed(overrides, is_sweep=False)))
    except MlpTapeError:
        raise
    except Exception as error:  # Hydra raises a ValueError, for example, for a number as an option
        raise composition_error(error, overrides, functools.partial(chosen, conf)) from error


def chosen(conf: Path, overrides: list[str]) -> dict[str, str]:
    """Returns the option of each group that overrides select."""
    choices = composed(conf, overrides).hydra.runtime.choices
    return {group: str(name) for group, name in choices.items()}


def _searchpath(directory: Path) -> str:
    """Returns the override that adds a directory of configs, like `--config-dir`."""
    return f"hydra.searchpath=[{_literal(f'file://{directory.absolute()}')}]"


def as_overrides(settings: Settings) -> list[str]:
    """Returns overrides that compose settings: an option for each group that has several, and differences."""
    chosen = {group: getattr(settings, group).name for group in groups() if len(options(group)) > 1}
    default = validation.parse(OmegaConf.create(defaults_with({g: {"name": n} for g, n in chosen.items()})))
    base = dict(flatten(default))
    found = []
    for key, value in flatten(settings):
        group = key.removesuffix(".name")
        if group in chosen and value in options(group):
            if value != getattr(Settings(), group).name:
                found.append(f"{group}={value}")
        elif value != base[key] and isinstance(value, dict):
            found += [f"{key}.{name}={_literal(each)}" for name, each in value.items()]
        elif value != base[key]:
            is_of_function = chosen.get(key.partition(".")[0], "").count(".") and not key.endswith(".name")
            found.append(f"{'++' if is_of_function else ''}{key}={_literal(value)}")
    return found


def _literal(value: object) -> str:
    """Returns a value in Hydra's override grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.]*", value)
    if not isinstance(value, str) or (
        is_word and value.lower() not in ("null", "true", "false", "nan", "inf")
    ):
        return format_value(value)
    return quoted(value).replace("${", "\\${")
