"""Registers the defaults of the settings with Hydra, which composes the config from them and `conf/`."""

import os
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from mlp_tape.cli import search_options
from mlp_tape.config import settings
from mlp_tape.system import program

BASE = "base_settings"  # first in the defaults list of conf/config.yaml


def _flag(variable: str, default: bool) -> bool | str:
    """Returns a flag in an environment variable, in each of MLflow's spellings; any other text as it is."""
    text = os.environ.get(variable, "").strip()
    return {"": default, "1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)


def _usage(kind: str, arguments: str, explanation: str) -> str:
    """Returns a line of `--help`: what to type to train or to run a tool, and what that does."""
    typed = program.train() if kind == "train" else program.tool()
    return f"{f'{typed} {arguments}':<56}{explanation}".rstrip()


def register() -> None:
    """Stores the defaults in Hydra's ConfigStore: one config for all settings, and one for each group option.

    They are untyped, so that a wrong value is reported by `validation.parse` and not by OmegaConf.
    """
    OmegaConf.register_new_resolver("mlp_tape.environment_flag", _flag, replace=True)
    OmegaConf.register_new_resolver("mlp_tape.usage", _usage, replace=True)
    store = ConfigStore.instance()
    base = OmegaConf.create(settings.defaults())
    OmegaConf.set_struct(base.tags, False)  # accepts any tag, without a plus sign
    store.store(BASE, base, provider="mlp_tape")
    for group in settings.groups():
        for option, values in settings.options(group).items():
            store.store(option, values, group=group, provider="mlp_tape")
    for (group, option), values in search_options.configs().items():
        store.store(option, values, group=group, provider="mlp_tape")


def option_names(conf: Path) -> dict[str, list[str]]:
    """Returns the options of each group, in the ConfigStore and in the YAML files, sorted by name.

    Args:
        conf: directory of the YAML files.
    """
    found = {group: set(settings.options(group)) for group in settings.groups()}
    for path in conf.glob("*/*.yaml"):
        found.setdefault(path.parent.name, set()).add(path.stem)
    return {group: sorted(names) for group, names in sorted(found.items()) if names}
