"""Corrections of a command line: which setting a misspelt key means, and what to type for it."""

import functools
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any

from mlp_tape.config.constraints import default_of
from mlp_tape.config.settings import Settings, format_value, groups, options
from mlp_tape.system import program, spelling

ADDED = ("experiment", "cluster", "sweep")  # groups that are not in the defaults list: +experiment=...
# Names that other programs use for a setting or a group.
SYNONYMS = {
    "learning_rate": "lr",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "epoch": "epochs",
    "random_seed": "seed",
    "random_state": "seed",
    "hidden": "model.hidden_sizes",
    "hidden_layer_sizes": "model.hidden_sizes",
    "layers": "model.hidden_sizes",
    "wd": "optimizer.weight_decay",
    "lr_scheduler": "schedule",
    "scheduler": "schedule",
    "optim": "optimizer",
    "opt": "optimizer",
    "data": "dataset",
    "name": "run_name",
    "description": "note",
}
REQUIRED = {"stopping.patience": "validation_fraction=0.1"}  # what else to type for a setting
Accepts = Callable[[str, str], bool]  # whether a setting accepts a value as typed
Chosen = Mapping[str, str]  # option of each group


def rules(settings: Any | None = None, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Yields (dotted key, field) of each setting."""
    settings = Settings() if settings is None else settings
    for rule in fields(settings):
        value = getattr(settings, rule.name)
        if is_dataclass(value):
            yield from rules(value, f"{prefix}{rule.name}.")
        else:
            yield f"{prefix}{rule.name}", rule


@functools.cache
def all_options() -> dict[str, list[str]]:
    """Returns the options of each group, those in `conf/` included."""
    found = {group: list(options(group)) for group in groups()}
    for path in sorted(program.conf().glob("*/*.yaml")):
        known = found.setdefault(path.parent.name, [])
        if path.stem not in known:
            known.append(path.stem)
    return {group: names for group, names in found.items() if names}


def names_of(rule: Field[Any]) -> list[str]:
    """Returns the names that a setting accepts, if it accepts only some."""
    _, is_one_of, names = str(rule.metadata["expected"]).partition("one of: ")
    return names.partition(";")[0].split(", ") if is_one_of else []


def word(key: str, value: str) -> str:
    """Returns an override as it is typed in a shell."""
    text = f"{key}={value}"
    return text if re.fullmatch(r"[\w@%+=:,./~\[\]-]+", text) else shlex.quote(text)


def commands(key: str, value: str, chosen: Chosen, accepts: Accepts) -> list[str]:
    """Returns what to type to set a setting or to select an option of a group, if it may mean several, each.

    Args:
        key: an existing setting or group.
        value: its value as typed; replaced by similar ones, or an example, if it is not valid.
        chosen: option of each group, as far as it is known.
        accepts: whether a setting accepts a value.
    """
    group, _, name = key.rpartition(".")
    if is_option(key, value):
        plus = "+" if key in ADDED else ""
        return [word(f"{plus}{key}", option) for option in spelling.closest(value, all_options()[key])]
    rule = dict(rules()).get(key)
    if rule is None:  # a tag, or a group of settings
        return [word(key, value)]
    names = names_of(rule)
    pieces = re.split(r",(?![^\[{(]*[\]})])", value)  # of a sweep: at commas outside of brackets
    is_valid = all(accepts(key, piece) for piece in pieces)
    values = [value] if is_valid else spelling.closest(value, names) or [example(rule)]
    if name == "name":
        return [word(group if each in options(group) else key, each) for each in values]
    users = rule.metadata["by_option"]
    before = [word(group, next(iter(users)))] if users and chosen.get(group, "") not in users else []
    after = [REQUIRED[key]] if key in REQUIRED else []
    return [" ".join([*before, word(key, each), *after]) for each in values]


def is_option(group: str, value: str) -> bool:
    """Returns whether a value is an option of a group, or similar to one."""
    return bool(spelling.closest(value, all_options().get(group, [])))


def example(rule: Field[Any]) -> str:
    """Returns a value of a setting: its example, its default, or that of the first option that uses it."""
    given = re.search(r"such as (\[.*?\])", str(rule.metadata["expected"]))
    if given:
        return given[1]
    by_option, default = rule.metadata["by_option"], default_of(rule)
    return format_value(next(iter(by_option.values())) if by_option else default)


def meant(key: str, value: str, accepts: Accepts) -> list[str]:
    """Returns the settings and groups that an unknown key may mean, each equally likely.

    A misspelling of the whole key is more likely than the last part of a key alone, and that more likely than
    another group of the setting. Among equally likely ones, those that accept the value are returned.

    Args:
        key: the unknown key.
        value: its value as typed.
        accepts: whether a setting accepts a value.
    """
    head, _, leaf = key.rpartition(".")
    apart: dict[str, float] = {}

    def add(name: str, letters: int | None, more: float) -> None:
        if letters is not None:
            apart[name] = min(apart.get(name, 99), letters + more)

    for group in all_options():
        add(group, spelling.difference(key, group), 0)
    for name, _ in rules():
        own = name.rpartition(".")[2]
        add(name, spelling.difference(key, name), 0)
        add(name, spelling.difference(leaf, own), 1.5 if head else 0.5)
    for synonym, name in SYNONYMS.items():
        add(name, 0 if spelling.plain(leaf) == synonym else None, 1.5 if head else 0.5)
    first, dot, rest = key.partition(".")
    if dot and first != "tags":
        add(f"tags.{rest}", spelling.difference(first, "tags"), 0)

    def fits(name: str) -> bool:
        return is_option(name, value) or name.startswith("tags.") or accepts(name, value)

    for most in (0, 1):  # a setting that is a little less similar, but accepts the value, is more likely
        near = [name for name, letters in apart.items() if letters <= min(apart.values()) + most]
        fitting = [name for name in near if fits(name)]
        if fitting:
            least = min(apart[name] for name in fitting)
            return [name for name in fitting if apart[name] == least]
    return [name for name, letters in apart.items() if letters == min(apart.values())]
