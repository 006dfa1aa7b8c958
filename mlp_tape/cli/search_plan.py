"""The plan of a search: its settings and its space, validated before anything is started."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from mlp_tape.cli import multirun, planner, search_options, search_space, sweeper
from mlp_tape.cli.hydra_internals import Composition
from mlp_tape.cli.search_options import SearchOptions
from mlp_tape.cli.search_space import Space
from mlp_tape.config import metrics, validation
from mlp_tape.config.settings import Settings, format_value
from mlp_tape.errors import ConfigError
from mlp_tape.storage import run_record
from mlp_tape.storage.metric_keys import VALIDATION_ACCURACY
from mlp_tape.sweeps.plan import Plan, PlannedJob
from mlp_tape.system.formatting import count


@dataclass(frozen=True)
class SearchPlan:
    """A search as it was typed.

    Attributes:
        options: its settings.
        space: what it varies.
    """

    options: SearchOptions
    space: Space

    def planned(self, config: DictConfig, compose: Composition) -> Plan:
        """Composes and validates jobs that together have each value, and of few values each pair.

        Args:
            config: config of the sweep, composed by Hydra.
            compose: function that composes the config of a job.

        Raises:
            ConfigError: a setting is invalid.
        """
        jobs = [planner.job(config, each, compose, 0) for each in self.space.probes()]
        return Plan(jobs, is_complete=False, search=self._recorded(jobs[0].settings))

    def _recorded(self, settings: Settings) -> dict[str, Any]:
        """Returns what the processes of the jobs, and a later one that resumes the search, have to know."""
        directions = _directions(self.options, settings)
        pruner = dict(self.options.pruner)
        if pruner["name"] == "auto":
            pruner = pruner | {"name": "median"} if len(directions) == 1 else {"name": "none"}
        n_trials = self.options.n_trials
        if self.options.sampler["name"] == "grid":
            points = 1
            for each in self.space.parameters:
                points *= each.size or 1
            n_trials = min(n_trials or points, points)
        return {
            "sampler": self.options.sampler,
            "pruner": pruner,
            "directions": directions,
            "n_trials": n_trials,
            "timeout": self.options.timeout,
            "n_jobs": self.options.n_jobs,
            "space": [each.to_dict() for each in self.space.parameters],
            "over": self.space.over.lstrip("+"),
            "seeds": self.space.seeds,
        }

    def run(self, plan: Plan, directory: Path, config: DictConfig, compose: Composition) -> sweeper.Run:
        """Returns the function that runs the search with a launcher.

        Args:
            plan: the plan, as the opened sweep returns it.
            directory: directory of the sweep.
            config: config of the sweep, composed by Hydra.
            compose: function that composes the config of a job.
        """
        return functools.partial(self._run, plan, directory, config, compose)

    def _run(
        self, plan: Plan, directory: Path, config: DictConfig, compose: Composition, launcher: Launcher
    ) -> list[Any]:
        from mlp_tape.sweeps.directory import SweepDirectory  # both import NumPy
        from mlp_tape.sweeps.search import Search

        def composed(params: dict[str, Any], seed: int, number: int) -> PlannedJob:
            return planner.job(config, self.space.overrides(params, seed), compose, number)

        def launch(overrides: list[list[str]], number: int) -> None:
            launcher.launch(overrides, initial_job_idx=number)

        search = run_record.read(directory).search
        Search(search, SweepDirectory(directory), composed, launch, plan.say).run()
        return []


def parse(config: DictConfig, loader: ConfigLoader) -> SearchPlan | None:
    """Returns the search that a config describes; None if it selects another sweeper than ours.

    Raises:
        ConfigError: a setting of the search, or of its space, is not valid.
    """
    if not search_options.is_search(config):
        return None
    options = search_options.parse(config)
    if options.n_jobs > 1 and multirun.launcher(config) == multirun.IN_THIS_PROCESS:
        raise ConfigError(
            f"n_jobs={options.n_jobs}: in one process, one job runs at a time",
            f"type hydra/launcher=joblib hydra.launcher.n_jobs={options.n_jobs} n_jobs={options.n_jobs}",
        )
    every = search_space.parse(config, loader, None)
    settings = validation.parse(loader.load_sweep_config(config, next(every.probes())), is_job=True)
    if settings.sweep.zip:
        raise ConfigError(
            "sweep.zip combines values in pairs, and a search chooses each on its own", "leave out sweep.zip"
        )
    space = search_space.parse(config, loader, settings.sweep.over)
    if not space.parameters:
        raise ConfigError(
            "nothing to search: no setting has several values",
            "type values, such as 'lr=tag(log,interval(0.01,1))' batch_size=32,64",
        )
    search_space.check_sampler(space, options, len(_objectives(settings)))
    _directions(options, settings)
    return SearchPlan(options, space)


def _objectives(settings: Settings) -> list[str]:
    """Returns the metrics by which a search chooses; whether of validation or of test may not be decided."""
    return settings.sweep.objectives or [settings.sweep.choose_by or VALIDATION_ACCURACY]


def _directions(options: SearchOptions, settings: Settings) -> list[str]:
    """Returns the direction of each objective.

    Raises:
        ConfigError: others were typed.
    """
    names = _objectives(settings)
    found = [metrics.direction(each) for each in names]
    typed = options.direction
    if typed and typed != found:
        right = found[0] if len(found) == 1 else format_value(found)
        shown = format_value(typed if len(typed) > 1 else typed[0])
        if len(typed) != len(found):
            several = "" if len(found) > 1 else ", or sweep.objectives=[validation/accuracy,seconds]"
            raise ConfigError(
                f"direction={shown}: {count(len(typed), 'direction')}, and the search has "
                f"{count(len(found), 'objective')}, {' and '.join(names)}",
                f"leave it out, or type direction={right}{several}",
            )
        raise ConfigError(
            f"direction={shown}, but {' and '.join(names)} has direction={right}",
            f"leave it out, or type direction={right}",
        )
    return found
