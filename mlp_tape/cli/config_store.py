"""Registers the defaults of the settings with Hydra, which composes the config from them and `conf/`."""

from pathlib import Path

from hydra.core.config_store import ConfigStore

from mlp_tape.config import settings

BASE = "base_settings"  # first in the defaults list of conf/config.yaml


def register() -> None:
    """Stores the defaults in Hydra's ConfigStore: one config for all settings, and one for each group option.

    They are untyped, so that a wrong value is reported by `validation.parse` and not by OmegaConf.
    """
    store = ConfigStore.instance()
    store.store(BASE, settings.defaults(), provider="mlp_tape")
    for group in settings.groups():
        for option, values in settings.options(group).items():
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
