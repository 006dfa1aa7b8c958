"""The sweeper that runs the jobs of a plan: it replaces Hydra's basic sweeper, and is configured like it."""

import importlib
import sys
import types
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlp_tape.storage import run_paths
from mlp_tape.sweeps.plan import Plan
from mlp_tape.system import atomic_files
from mlp_tape.system.redaction import without_password

# Hydra only accepts plugins that it can import from the package `hydra_plugins`.
PACKAGE, NAME = "hydra_plugins.mlp_tape", "PlannedSweeper"


class PlannedSweeper(Sweeper):
    """Launches the jobs of a plan, in batches.

    Hydra's own sweeper would compute the combinations again, including those that are equal, and validate
    only one batch at a time.

    Attributes:
        plan: the jobs.
        written: config of the sweep for `multirun.yaml`, the file that Hydra's own sweeper writes.
    """

    plan: Plan
    written: str

    def __init__(self, max_batch_size: int | None = None, params: Any = None) -> None:
        self._batch = max_batch_size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Creates the launcher that the config selects."""
        self._directory = Path(config.hydra.sweep.dir)
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Runs the jobs and returns their results; raises the exception of a job that could not begin."""
        atomic_files.write_text(self._directory / run_paths.HYDRA_SWEEP, self.written)
        overrides, results = [job.overrides for job in self.plan.jobs], list[Any]()
        size = self._batch or len(overrides)
        for start in range(0, len(overrides), size):
            batch = self._launcher.launch(overrides[start : start + size], initial_job_idx=start)
            results += [job.return_value for job in batch]
        return results


def use(config: DictConfig, plan: Plan) -> None:
    """Lets Hydra run the jobs of a plan.

    Args:
        config: config of the sweep, composed by Hydra; changed in place.
        plan: the jobs.
    """
    written = without_password(OmegaConf.to_yaml(config))
    planned = type(NAME, (PlannedSweeper,), {"plan": plan, "written": written, "__module__": PACKAGE})
    module = types.ModuleType(PACKAGE)
    setattr(module, NAME, planned)
    sys.modules[PACKAGE] = module
    parent, _, child = PACKAGE.rpartition(".")
    setattr(importlib.import_module(parent), child, module)
    Plugins.instance().register(planned)
    with read_write(config), open_dict(config):
        config.hydra.sweeper._target_ = f"{PACKAGE}.{NAME}"
