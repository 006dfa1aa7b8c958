"""Hydra's plug-ins of mlp_tape: the sweepers by which its command line runs sweeps and searches.

Hydra only accepts plug-ins of the package `hydra_plugins`, and imports all of them when a program starts,
also one that has nothing to do with mlp_tape.
"""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PlannedSweeper(Sweeper):
    """Runs the jobs of a sweep as `mlp_tape.cli.sweeper` has planned them.

    Hydra's own sweeper would compute the combinations again, including those that are equal, and validate
    only one batch at a time.
    """

    def __init__(self, **settings: Any) -> None:
        """Accepts the settings of the sweeper that it replaces, which the plan has taken into account."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Creates the launcher that the config selects."""
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Runs the jobs and returns their results; raises the exception of a job that could not begin."""
        from mlp_tape.cli import sweeper

        return sweeper.run(self._launcher)


class OptunaSweeper(PlannedSweeper):
    """Searches with Optuna, also by the plan of `mlp_tape.cli.sweeper`."""
