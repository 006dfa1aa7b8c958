"""The settings of a search: sampler, pruner, numbers of trials and of concurrent ones, and their limits."""

import importlib.metadata
import importlib.util
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from mlp_tape.cli.sweeper import OPTUNA
from mlp_tape.config.settings import format_value
from mlp_tape.errors import ConfigError
from mlp_tape.system import program, spelling

# Settings of the sweeper that can be typed without `hydra.sweeper.`; sampler and pruner are groups.
SHORT = {
    "n_trials": "hydra.sweeper.n_trials",
    "timeout": "hydra.sweeper.timeout",
    "n_jobs": "hydra.sweeper.n_jobs",
    "direction": "hydra.sweeper.direction",
    "sampler": "hydra/sweeper/sampler",
    "pruner": "hydra/sweeper/pruner",
}


@dataclass(frozen=True)
class Rule:
    """A setting of a search: its default, and what it accepts."""

    default: Any
    expected: str
    accepts: Callable[[Any], bool]


def _integer(default: int | None, low: int) -> Rule:
    expected = f"an integer from {low}" + (", or null" if default is None else "")
    return Rule(default, expected, lambda v: (type(v) is int and v >= low) or v is default is None)


def _flag(default: bool) -> Rule:
    return Rule(default, "true or false", lambda v: type(v) is bool)


_SEED = Rule(0, "an integer from 0 to 4294967295", lambda v: type(v) is int and 0 <= v < 2**32)
_MEDIAN = {
    "n_startup_trials": _integer(5, 0),
    "n_warmup_steps": Rule(
        None,
        "an integer from 0, or null for a third of the epochs",
        lambda v: v is None or (type(v) is int and v >= 0),
    ),
    "interval_steps": _integer(1, 1),
}
SAMPLERS: dict[str, dict[str, Rule]] = {
    "tpe": {"seed": _SEED, "n_startup_trials": _integer(10, 0), "n_ei_candidates": _integer(24, 1)},
    "random": {"seed": _SEED},
    "grid": {"seed": _SEED},
    "cmaes": {
        "seed": _SEED,
        "n_startup_trials": _integer(1, 0),
        "popsize": Rule(
            None, "an integer from 2, or null", lambda v: v is None or (type(v) is int and v > 1)
        ),
        "with_margin": _flag(False),
    },
    "qmc": {
        "seed": _SEED,
        "qmc_type": Rule("sobol", "one of: sobol, halton", ("sobol", "halton").__contains__),
        "scramble": _flag(False),
    },
    "gp": {"seed": _SEED, "n_startup_trials": _integer(10, 0), "deterministic_objective": _flag(False)},
}
PRUNERS: dict[str, dict[str, Rule]] = {
    "auto": _MEDIAN,  # of a search with one objective; Optuna does not prune with several
    "median": _MEDIAN,
    "successive_halving": {
        "min_resource": _integer(1, 1),
        "reduction_factor": _integer(4, 2),
        "min_early_stopping_rate": _integer(0, 0),
        "bootstrap_count": _integer(0, 0),
    },
    "hyperband": {
        "min_resource": _integer(1, 1),
        "reduction_factor": _integer(3, 2),
        "bootstrap_count": _integer(0, 0),
    },
    "none": {},
}
GENERAL: dict[str, Rule] = {
    "n_trials": Rule(20, "an integer from 1, or null", lambda v: v is None or (type(v) is int and v >= 1)),
    "timeout": Rule(
        None,
        "a number of seconds above 0, or null",
        lambda v: v is None or (type(v) in (int, float) and 0 < v < math.inf),
    ),
    "n_jobs": _integer(1, 1),
    "direction": Rule(
        None,
        "maximize or minimize, or null for that of the metric",
        lambda v: v is None or {*(v if isinstance(v, list) else [v])} <= {"maximize", "minimize"},
    ),
    "params": Rule({}, "values by setting", lambda v: isinstance(v, dict)),
}


@dataclass(frozen=True)
class SearchOptions:
    """The validated settings of a search.

    Attributes:
        sampler: name and settings of the sampler.
        pruner: name and settings of the pruner; `auto` stands for the default.
        n_trials: total number of trials; None for no limit.
        timeout: number of seconds after which no further trial begins; None for no limit.
        n_jobs: number of concurrent trials.
        direction: directions as typed, one for each objective; empty for those of the metrics.
    """

    sampler: dict[str, Any]
    pruner: dict[str, Any]
    n_trials: int | None
    timeout: float | None
    n_jobs: int
    direction: list[str]


def configs() -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the configs of the sweeper for Hydra, by group and option."""
    general: dict[str, Any] = {key: rule.default for key, rule in GENERAL.items()}
    defaults = ["_self_", {"sampler": "tpe"}, {"pruner": "auto"}]
    found = {("hydra/sweeper", "optuna"): {"defaults": defaults, "_target_": OPTUNA} | general}
    for kind, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        for name, rules in known.items():
            values = {key: rule.default for key, rule in rules.items()}
            found[f"hydra/sweeper/{kind}", name] = {"name": name} | values
    return found


def is_search(config: DictConfig) -> bool:
    """Returns whether a config selects our own sweeper that searches."""
    return str(config.hydra.sweeper._target_) == OPTUNA


def parse(config: DictConfig) -> SearchOptions:
    """Validates the settings of a search.

    Raises:
        ConfigError: a setting is unknown or invalid, or what it requires is not installed.
    """
    _check_installed("optuna", "a search requires Optuna 4 or later", f"run {program.install('optuna')}")
    version = importlib.metadata.version("optuna")
    if int(version.partition(".")[0]) < 4:
        raise ConfigError(
            f"a search requires Optuna 4 or later, and {version} is installed",
            f"run {program.install('optuna')}",
        )
    node = {str(key): _plain(value) for key, value in config.hydra.sweeper.items()}
    del node["_target_"]
    sampler = _checked_group("sampler", node.pop("sampler"), SAMPLERS)
    pruner = _checked_group("pruner", node.pop("pruner"), PRUNERS)
    _check(node, GENERAL, "hydra.sweeper")
    if node["n_trials"] is None and node["timeout"] is None and sampler["name"] != "grid":
        raise ConfigError(
            "n_trials=null and timeout=null: the search would never end", "type n_trials=20 or timeout=600"
        )
    if sampler["name"] == "cmaes":
        _check_installed("cmaes", "sampler=cmaes requires cmaes", f"run {program.install('optuna')}")
    if sampler["name"] == "gp":
        _check_installed("torch", "sampler=gp requires PyTorch", "run pip install torch, or type sampler=tpe")
    direction = node["direction"] or []
    return SearchOptions(
        sampler,
        pruner,
        node["n_trials"],
        node["timeout"],
        node["n_jobs"],
        direction if isinstance(direction, list) else [direction],
    )


def _plain(value: Any) -> Any:
    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_container(value, resolve=True)
    return value


def _check_installed(package: str, what: str, hint: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{what}, which is not installed", hint)


def _checked_group(kind: str, given: Any, known: Mapping[str, Mapping[str, Rule]]) -> dict[str, Any]:
    """Returns name and settings of a sampler or a pruner."""
    name = str(given.get("name") if isinstance(given, dict) else given)
    if not isinstance(given, dict) or name not in known:
        near = spelling.closest(name, list(known)) or list(known)
        raise ConfigError(
            f"hydra.sweeper.{kind}={format_value(name)}: a {kind} is selected as a group",
            f"type {kind}={near[0]}",
        )
    _check(given, {"name": Rule(name, name, lambda v: v == name), **known[name]}, f"hydra.sweeper.{kind}")
    return dict(given)


def _check(given: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str) -> None:
    for key, value in given.items():
        name = f"{prefix}.{key}"
        if key not in rules:
            raise unknown(name, format_value(value))
        if not rules[key].accepts(value):
            typed = key if key in SHORT and prefix == "hydra.sweeper" else name
            default = rules[key].default
            example = "10" if default is None and "integer" in rules[key].expected else format_value(default)
            raise ConfigError(
                f"{typed}={format_value(value)}: expected {rules[key].expected}", f"type {typed}={example}"
            )


def unknown(key: str, value: str) -> ConfigError:
    """Returns the error for a setting of the sweeper that does not exist.

    Args:
        key: the setting, beginning with `hydra.sweeper.`.
        value: its value as typed.
    """
    name = key.removeprefix("hydra.sweeper.")
    if name in ("storage", "study_name"):
        return ConfigError(
            f"unknown setting: {key}; the study is kept in the directory of the sweep",
            "leave it out; optuna-dashboard DIRECTORY/study.log shows the study",
        )
    near = spelling.closest(name, list(SHORT))
    if near and "." not in name:
        return ConfigError(f"unknown setting: {key}", f"did you mean {near[0]}={value} ?")
    kind, _, own = name.partition(".")
    known = {"sampler": SAMPLERS, "pruner": PRUNERS}.get(kind)
    if known and own:
        users = [option for option, rules in known.items() if own in rules and option != "auto"]
        if users:
            return ConfigError(
                f"{key} is a setting of {' and '.join(f'{kind}={user}' for user in users)}",
                f"type {kind}={users[0]} {key}={value}",
            )
        names = sorted({each for rules in known.values() for each in rules})
        near = spelling.closest(own, names)
        if near:
            meant = f"hydra.sweeper.{kind}.{near[0]}={value}"
            return ConfigError(f"unknown setting: {key}", f"did you mean {meant} ?")
        return ConfigError(f"unknown setting: {key}", f"the settings of a {kind} are {', '.join(names)}")
    return ConfigError(f"unknown setting: {key}", f"the settings of a search are {', '.join(SHORT)}")


def in_full(override: str) -> str:
    """Returns an override in which a setting of the sweeper that was typed without its group has it."""
    found = re.match(r"(\+{0,2})(\w+)=", override)
    if not found or found[2] not in SHORT:
        return override
    return f"{SHORT[found[2]]}={override[found.end() :]}"


def selects(override: str) -> bool:
    """Returns whether an override, as typed, selects a search."""
    return override.lstrip("+") in ("hydra/sweeper=optuna", "sweep=optuna")


def is_typed(override: str) -> bool:
    """Returns whether an override, as typed, selects a search, or is a setting of one."""
    return selects(override) or in_full(override) != override or override.startswith("hydra/sweeper/")
