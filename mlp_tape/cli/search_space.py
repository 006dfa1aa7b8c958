"""The space of a search, from the values that are typed in Hydra's override grammar."""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, get_type_hints

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig

from mlp_tape.cli import planner
from mlp_tape.cli.search_options import SearchOptions
from mlp_tape.config.settings import Settings, groups
from mlp_tape.errors import ConfigError
from mlp_tape.sweeps.space import CATEGORICAL, FLOAT, INT, Parameter
from mlp_tape.system import formatting

MOST_VALUES = 1_000  # of a setting; of one with more values, both ends are validated
MOST_PAIRS = 400  # combinations of two values that are validated


@dataclass(frozen=True)
class Space:
    """What a search varies, and what it does not.

    Attributes:
        parts: for each overridden setting, in the order in which Hydra has them, the parameter, or the
            override of a setting that is not varied; None for the seeds.
        over: setting over which results are averaged, as it is typed before `=`.
        seeds: its values as typed; empty if results are not averaged.
    """

    parts: list[Parameter | str | None]
    over: str = ""
    seeds: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> list[Parameter]:
        """The settings that are varied."""
        return [each for each in self.parts if isinstance(each, Parameter)]

    def overrides(self, params: dict[str, Any], seed: int = 0) -> list[str]:
        """Returns the overrides of a job.

        Args:
            params: value of each parameter.
            seed: index of its seed.
        """
        return [
            each
            if isinstance(each, str)
            else each.override(params[each.name])
            if each
            else f"{self.over}={self.seeds[seed]}"
            for each in self.parts
        ]

    def probes(self) -> Iterator[list[str]]:
        """Yields overrides with which each value, and as far as they are few each pair of values, occurs.

        Of an interval, the values are its ends. The first ones have the first value of each setting.
        """
        values = {each.name: _probed(each) for each in self.parameters}
        first = {name: each[0] for name, each in values.items()}
        yield self.overrides(first)
        for name, every in values.items():
            for value in every[1:]:
                yield self.overrides(first | {name: value})
        for seed in range(1, len(self.seeds)):
            yield self.overrides(first, seed)
        left = MOST_PAIRS
        for one, other in itertools.combinations(values, 2):
            left -= (len(values[one]) - 1) * (len(values[other]) - 1)
            if left < 0:
                return
            for pair in itertools.product(values[one][1:], values[other][1:]):
                yield self.overrides(first | dict(zip((one, other), pair, strict=True)))


def _probed(parameter: Parameter) -> list[Any]:
    """Returns the values of a parameter that are validated."""
    size = parameter.size
    if size is None or size > MOST_VALUES:
        return parameter.ends()
    return [parameter.at(index) for index in range(size)]


def parse(config: DictConfig, loader: ConfigLoader, over: str | None) -> Space:
    """Returns the space of a search.

    Args:
        config: config of the sweep, composed by Hydra.
        loader: Hydra's config loader, which knows the options that `glob` selects.
        over: setting over whose values results are averaged; None for none.

    Raises:
        ConfigError: a setting has no values, or values that cannot be searched.
    """
    parts: list[Parameter | str | None] = []
    typed, seeds = "", list[str]()
    for override in planner.parsed(config, loader):
        key = override.get_key_element()
        planner.refuse_sweep_of_description(override)
        if key.lstrip("+") == over and override.is_discrete_sweep():
            typed, seeds = key, list(dict.fromkeys(override.sweep_string_iterator()))
            parts.append(None)
        else:
            parts.append(_part(override))
    return Space(parts, typed, seeds)


def check_sampler(space: Space, options: SearchOptions, n_objectives: int) -> None:
    """Raises ConfigError if sampler or pruner cannot be used for a space, or for several objectives."""
    sampler, pruner = options.sampler["name"], options.pruner["name"]
    endless = next((each for each in space.parameters if each.size is None), None)
    if sampler == "grid" and endless:
        low, high = endless.ends()
        inside = [low + part * (high - low) for part in (0.25, 0.75)]
        values = ",".join(map(formatting.value, inside))
        raise ConfigError(
            f"sampler=grid: {endless.name} is a continuous range, which has no grid",
            f"type values, such as {endless.name}={values}, or sampler=tpe",
        )
    if sampler == "cmaes" and all(each.kind == CATEGORICAL for each in space.parameters):
        raise ConfigError(
            "sampler=cmaes searches numbers, and "
            f"{', '.join(each.name for each in space.parameters)} has only separate values",
            "type sampler=tpe, or an interval such as 'lr=interval(0.01,1)'",
        )
    if sampler == "cmaes" and n_objectives > 1:
        raise ConfigError("sampler=cmaes searches for one objective", "type sampler=tpe")
    if n_objectives > 1 and pruner not in ("auto", "none"):
        raise ConfigError(
            f"pruner={pruner}: with several objectives, nothing can be pruned", "type pruner=none"
        )


def _part(override: Override) -> Parameter | str:
    """Returns the parameter of an override, or the override itself if it has a single value."""
    value = override.value()
    if not override.is_sweep_override():
        return override.input_line or ""
    if isinstance(value, IntervalSweep):
        return _interval(override, value)
    if isinstance(value, RangeSweep):
        return _range(override, value)
    return _choice(override)


def _key(override: Override) -> tuple[str, str]:
    """Returns `+` or `++`, if it is typed, and the setting or group."""
    key = override.get_key_element()
    name = key.lstrip("+")
    return key[: len(key) - len(name)], name


def _choice(override: Override) -> Parameter | str:
    swept = override.value()
    if isinstance(swept, ChoiceSweep):  # in the same order in any process
        override = dataclasses.replace(override, _value=dataclasses.replace(swept, shuffle=False))
    typed = list(override.sweep_string_iterator())
    prefix, name = _key(override)
    if not typed:
        raise ConfigError(f"{override.input_line} has no values", f"type values, such as {name}=1,2")
    by_value: dict[Any, str] = {}
    numbers = [_number(text) for text in typed]
    for text, number in zip(typed, numbers, strict=True):
        by_value.setdefault(text if None in numbers else number, text)
    if len(by_value) == 1:
        return f"{prefix}{name}={typed[0]}"
    return Parameter(name, CATEGORICAL, choices=list(by_value), typed=list(by_value.values()), prefix=prefix)


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            number = kind(text)
            return number if math.isfinite(number) else None
        except ValueError:
            continue
    return None


def _range(override: Override, swept: RangeSweep) -> Parameter | str:
    prefix, name = _key(override)
    try:
        values = list(itertools.islice(dataclasses.replace(swept, shuffle=False).range(), 1_000_001))
    except (ValueError, HydraException):
        raise ConfigError(f"{override.input_line}: the step is 0", f"type {name}=1,2") from None
    if not values:
        raise ConfigError(
            f"{override.input_line} has no values, as it ends before it starts",
            f"type the smaller number first, such as '{name}=range({swept.stop},{swept.start})'",
        )
    if len(values) > 1_000_000:
        raise ConfigError(
            f"{override.input_line} has more than a million values",
            f"type '{name}=interval({swept.start},{swept.stop})'",
        )
    if len(values) == 1:
        return f"{prefix}{name}={values[0]}"
    first, step, log = values[0], swept.step, "log" in swept.tags
    last: float = values[-1]
    kind = INT if all(type(each) is int for each in values) else FLOAT
    if kind == FLOAT:  # without the errors of rounding of Hydra's sum
        last = float(Decimal(str(first)) + (len(values) - 1) * Decimal(str(step)))
    low, high, step = min(first, last), max(first, last), abs(step)
    if log and (kind == FLOAT or step != 1):
        texts = ",".join(map(str, values[:3]))
        raise ConfigError(
            f"{override.input_line}: a logarithmic range has no steps",
            f"type '{name}=tag(log,interval({low},{high}))' or {name}={texts}",
        )
    _check_log(override, name, low, high, log)
    return Parameter(name, kind, low, high, step, log, prefix=prefix)


def _interval(override: Override, swept: IntervalSweep) -> Parameter:
    prefix, name = _key(override)
    low, high, log = swept.start, swept.end, "log" in swept.tags
    assert low is not None and high is not None
    low_typed, high_typed = formatting.value(low), formatting.value(high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(
            f"{override.input_line}: an interval has finite ends",
            f"type for example '{name}=interval(0.01,1)'",
        )
    if low >= high:
        what = "is empty" if low == high else "ends before it starts"
        if low == high:
            hint = f"type {name}={low_typed}, or two different ends"
        else:
            inner = f"interval({high_typed},{low_typed})"
            hint = f"type '{name}={f'tag(log,{inner})' if log else inner}'"
        raise ConfigError(f"{override.input_line}: the interval {what}", hint)
    _check_log(override, name, low, high, log)
    if not (type(low) is int and type(high) is int) and not _is_integer(name):
        return Parameter(name, FLOAT, float(low), float(high), None, log, prefix=prefix)
    if low != int(low) or high != int(high):
        smaller, larger = math.floor(low), math.ceil(high)
        raise ConfigError(
            f"{override.input_line}: {name} is an integer",
            f"type '{name}=interval({max(1, smaller) if log else smaller},{larger})'",
        )
    return Parameter(name, INT, int(low), int(high), 1, log, prefix=prefix)


def _check_log(override: Override, name: str, low: float, high: float, log: bool) -> None:
    if log and low <= 0:
        smaller = formatting.value(high / 1000) if high > 0 else "0.001"
        larger = formatting.value(high) if high > 0 else "1"
        raise ConfigError(
            f"{override.input_line}: a logarithm needs numbers above 0",
            f"type '{name}=tag(log,interval({smaller},{larger}))'",
        )


def _is_integer(name: str) -> bool:
    """Returns whether a setting is an integer."""
    group, _, own = name.rpartition(".")
    kind = groups().get(group) if group else Settings
    hint = get_type_hints(kind).get(own) if kind else None
    return hint in (int, int | None)
