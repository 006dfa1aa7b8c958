"""Plans a search: its space, its settings, and the validation of what it may propose."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from mlp_tape.cli import multirun, planner, search_options, search_space
from mlp_tape.cli.hydra_internals import Composition
from mlp_tape.cli.search_options import SearchOptions
from mlp_tape.cli.search_space import Space
from mlp_tape.config import metrics, validation
from mlp_tape.config.settings import Settings, format_value
from mlp_tape.errors import ConfigError
from mlp_tape.storage.metric_keys import VALIDATION_ACCURACY
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.plan import Plan
from mlp_tape.system import program


@dataclass(frozen=True)
class SearchPlan:
    """A search that was validated.

    Attributes:
        options: its settings.
        space: its space.
        first: overrides of a job of the space.
    """

    options: SearchOptions
    space: Space
    first: list[str]


def parsed(config: DictConfig, loader: ConfigLoader) -> SearchPlan:
    """Validates the settings and the space of a search, but not the values in it.

    Args:
        config: config of the sweep, composed by Hydra.
        loader: Hydra's config loader.

    Raises:
        ConfigError: a setting of the search is invalid, or its space is.
    """
    options = search_options.parse(config)
    over = config.sweep.over
    for override in planner.parsed(config, loader):
        if override.get_key_element() == "sweep.over":
            over = override.value()
    space = search_space.parse(config, loader, over)
    if options.n_jobs > 1 and multirun.launcher(config) == multirun.IN_THIS_PROCESS:
        raise ConfigError(
            f"n_jobs={options.n_jobs}, but the jobs run one after the other",
            f"type hydra/launcher=joblib n_jobs={options.n_jobs}, or n_jobs=1",
        )
    return SearchPlan(options, space, next(space.probes()))


def planned(config: DictConfig, search: SearchPlan, compose: Composition) -> Plan:
    """Composes and validates what a search may propose: each value, of an interval both ends, and pairs.

    Raises:
        ConfigError: a value is invalid, or sampler or pruner cannot be used for the space.
        HydraException: a config cannot be composed.
    """
    first = validation.parse(compose(config, search.first), is_job=True)
    if first.sweep.zip:
        raise ConfigError(
            "sweep.zip: the values of a search are not combined in pairs", "leave out sweep.zip"
        )
    chosen = first.sweep.objectives or [first.sweep.choose_by or VALIDATION_ACCURACY]
    _check_direction(search.options.direction, chosen)
    search_space.check_sampler(search.space, search.options, len(chosen))
    jobs = [planner.job(config, each, compose, 0) for each in search.space.probes()]
    pruner = dict(search.options.pruner)
    if pruner["name"] == "auto":
        can_prune = len(chosen) == 1 and "/" in chosen[0]
        pruner = pruner | {"name": "median"} if can_prune else {"name": "none"}
    recorded = {
        "sampler": search.options.sampler,
        "pruner": pruner,
        "n_trials": search.options.n_trials,
        "space": [each.to_dict() for each in search.space.parameters],
        "over": search.space.over.lstrip("+"),
        "seeds": search.space.seeds,
    }
    return Plan(jobs, is_complete=False, search=recorded)


def _check_direction(typed: list[str], chosen: list[str]) -> None:
    """Raises ConfigError if the directions that were typed are not those of the metrics."""
    known = [metrics.direction(each) for each in chosen]
    if not typed or typed == known:
        return
    text = format_value(typed if len(typed) > 1 else typed[0])
    if len(typed) != len(known):
        if len(typed) > len(known):
            hint = f"type sweep.objectives=[{chosen[0]},seconds], or leave out direction"
        else:
            hint = "leave it out: the direction of each objective is known"
        number = "one objective" if len(known) == 1 else f"{len(known)} objectives"
        raise ConfigError(f"direction={text} for {number}: {', '.join(chosen)}", hint)
    i = next(i for i, each in enumerate(typed) if each != known[i])
    raise ConfigError(
        f"direction={text} looks for the worst {chosen[i].replace('/', ' ')}",
        "leave it out, or choose by another metric, such as sweep.choose_by=validation/loss",
    )


def runner(
    config: DictConfig, search: SearchPlan, plan: Plan, compose: Composition
) -> Callable[[Launcher], list[Any]]:
    """Returns the function that runs a search with a launcher of Hydra.

    Args:
        config: config of the sweep, composed by Hydra.
        search: the search.
        plan: its plan, as `sweep.opened` returns it.
        compose: function that composes the config of a job.
    """

    def settings(overrides: list[str]) -> Settings:
        try:
            return validation.parse(compose(config, overrides), is_job=True)
        except HydraException as error:
            raise ConfigError(str(error).splitlines()[0], f"see {program.train()} --help") from error

    def run(launcher: Launcher) -> list[Any]:
        from mlp_tape.sweeps.search import Search
        from mlp_tape.sweeps.study import Study

        jobs = SweepDirectory(multirun.directory(config))
        Search(
            study=Study(jobs.directory, plan.search),
            jobs=jobs,
            overrides=search.space.overrides,
            settings=settings,
            launch=lambda overrides, number: launcher.launch(overrides, initial_job_idx=number),
            seeds=len(search.space.seeds) or 1,
            n_jobs=search.options.n_jobs,
            timeout=search.options.timeout,
            say=plan.say,
        ).run()
        return []

    return run
