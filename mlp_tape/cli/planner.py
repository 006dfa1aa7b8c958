"""Composes and validates all jobs of a sweep, before the first one starts."""

import itertools
import os
import shlex
from collections.abc import Iterator
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf, open_dict

from mlp_tape.cli.command_line import quoted
from mlp_tape.cli.hydra_internals import Composition
from mlp_tape.config import validation
from mlp_tape.config.settings import is_description, job_identity
from mlp_tape.errors import ConfigError
from mlp_tape.sweeps.plan import Plan, PlannedJob
from mlp_tape.system import formatting

Choices = dict[str, list[str]]  # for each overridden setting, the overrides of which each job has one
MOST_VALUES = 1_000  # of a range that a search explores; of a longer one, both ends are validated


def planned(config: DictConfig, choices: Choices, compose: Composition) -> Plan:
    """Composes and validates the jobs of a sweep, before anything is started.

    Args:
        config: config of the sweep, composed by Hydra.
        choices: as returned by `choices`.
        compose: function that composes the config of a job from that of the sweep and the job's overrides.

    Raises:
        ConfigError: a setting is invalid, or two jobs have the same directory.
        HydraException: a config cannot be composed.
    """
    zipped = validation.parse(compose(config, first(choices)), is_job=True).sweep.zip
    if not is_basic(config):
        return Plan([job(config, each, compose, 0) for each in _each_value(choices)], False)
    combinations = enumerate(_combinations(choices, zipped))
    all_jobs = Plan([job(config, overrides, compose, number) for number, overrides in combinations])
    plan = all_jobs.without_equal(lambda settings: job_identity(settings, settings.dataset.path or ""))
    _check_folders(plan.jobs)
    return plan


def is_basic(config: DictConfig) -> bool:
    """Returns whether a sweep runs all combinations of its values, and not those that a search selects."""
    return str(config.hydra.sweeper._target_).endswith("BasicSweeper")


def as_written(node: Any) -> Any:
    """Returns a list or dictionary of a config with interpolations as they were written, not resolved."""
    return OmegaConf.to_container(node, resolve=False)


def choices(config: DictConfig, loader: ConfigLoader) -> Choices:
    """Returns the values of a sweep: those in `hydra.sweeper.params`, then those on the command line.

    Args:
        config: config of the sweep, composed by Hydra.
        loader: Hydra's config loader, which knows the options that `glob` selects.

    Raises:
        ConfigError: a value cannot be swept.
    """
    return {
        override.get_key_element(): _values(override, is_basic(config)) for override in parsed(config, loader)
    }


def parsed(config: DictConfig, loader: ConfigLoader) -> list[Override]:
    """Returns the overrides of a sweep, parsed; the arguments are those of `choices`."""
    params = config.hydra.sweeper.get("params")
    given = [f"{name}={value}" for name, value in as_written(params or OmegaConf.create({})).items()]
    typed = as_written(config.hydra.overrides.task)
    found: dict[str, Override] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides([*given, *typed]):
        found.pop(override.get_key_element(), None)  # the last one counts, after those typed before it
        found[override.get_key_element()] = override
    return list(found.values())


def first(choices: Choices) -> list[str]:
    """Returns the overrides of the first job."""
    return [values[0] for values in choices.values()]


def _values(override: Override, is_basic: bool) -> list[str]:
    """Returns the overrides that a sweep makes of one; of an interval, its two ends."""
    name, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        if is_basic:
            start, end = float(value.start or 0), float(value.end or 0)
            inside = [start + part * (end - start) for part in (0.25, 0.75)]  # the ends may be invalid
            raise ConfigError(
                f"{override.input_line}: a continuous range needs a search",
                f"type values, such as {name}={','.join(map(formatting.value, inside))} or +sweep=optuna",
            )
        return [f"{name}={value.start}", f"{name}={value.end}"]
    if not override.is_discrete_sweep():
        return [override.input_line or ""]
    refuse_sweep_of_description(override)
    values = list(override.sweep_string_iterator())
    if not values:
        raise ConfigError(f"{override.input_line} has no values", f"type values, such as {name}=1,2")
    if not is_basic and len(values) > MOST_VALUES:
        values = [values[0], values[-1]]
    return [f"{name}={each}" for each in values]


def refuse_sweep_of_description(override: Override) -> None:
    """Raises ConfigError if several values are typed for what describes all jobs of a sweep."""
    name = override.get_key_element()
    if is_description(name) and override.is_sweep_override():
        text = (override.input_line or "").partition("=")[2]
        raise ConfigError(
            f"{override.input_line}: {name} describes all jobs, and cannot be swept",
            f"type it with quotes of its own: {shlex.quote(f'{name}={quoted(text)}')}",
        )


def _combinations(choices: Choices, zipped: list[str]) -> Iterator[list[str]]:
    """Yields the overrides of each job: the product of all values, but those of zipped settings in step.

    Raises:
        ConfigError: a zipped setting is not swept, or has another number of values than the others.
    """
    by_name = {name.lstrip("+~"): values for name, values in choices.items()}
    for name in zipped:
        if len(by_name.get(name, [])) < 2:
            raise ConfigError(f"sweep.zip: {name} has no values to sweep", f"type them, such as {name}=1,2")
    lengths = {name: len(by_name[name]) for name in zipped}
    if len(set(lengths.values())) > 1:
        raise ConfigError(
            f"sweep.zip: {', '.join(f'{name} has {n} values' for name, n in lengths.items())}",
            "type the same number of values for each",
        )
    axes: list[list[list[str]]] = []
    for name, values in choices.items():
        if name.lstrip("+~") not in zipped:
            axes.append([[value] for value in values])
        elif name.lstrip("+~") == zipped[0]:
            axes.append([list(each) for each in zip(*(by_name[other] for other in zipped), strict=True)])
    for combination in itertools.product(*axes):
        yield list(itertools.chain.from_iterable(combination))


def _each_value(choices: Choices) -> Iterator[list[str]]:
    """Yields overrides in which each value occurs at least once, beginning with the first of each."""
    start = first(choices)
    yield start
    for i, values in enumerate(choices.values()):
        for value in values[1:]:
            yield [*start[:i], value, *start[i + 1 :]]


def job(config: DictConfig, overrides: list[str], compose: Composition, number: int) -> PlannedJob:
    """Composes and validates a job of a sweep.

    Args:
        config: config of the sweep, composed by Hydra.
        overrides: overrides of the job.
        compose: function that composes the config of a job.
        number: number of the job.

    Raises:
        ConfigError: a setting is invalid.
        HydraException: the config cannot be composed.
    """
    composed = compose(config, overrides)
    settings = validation.parse(composed, is_job=True)
    if settings.resume is not None:
        raise ConfigError(
            "resume=... resumes a single run", "remove -m, or type sweep.resume=... to resume a sweep"
        )
    with open_dict(composed):
        composed.hydra.job.num, composed.hydra.job.id = number, str(number)
    return PlannedJob(overrides, settings, os.path.normpath(str(composed.hydra.sweep.subdir)))


def _check_folders(jobs: list[PlannedJob]) -> None:
    """Raises ConfigError if two jobs have the same directory, which is not a number."""
    seen: dict[str, PlannedJob] = {}
    for job in jobs:
        other = seen.setdefault(job.folder, job)
        if other is not job and job.folder != ".":
            differ = [text for text in job.overrides if text not in other.overrides]
            raise ConfigError(
                f"hydra.sweep.subdir: {' '.join(differ)} has the directory {job.folder} of another job",
                "leave it out, or type for example 'hydra.sweep.subdir=${hydra.job.override_dirname}'",
            )
