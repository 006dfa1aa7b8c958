"""What Hydra's sweeper runs: the jobs of a plan, or those of a search, one batch after the other."""

import contextvars
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlp_tape.cli import hydra_internals
from mlp_tape.storage import run_paths
from mlp_tape.sweeps.plan import PlannedJob
from mlp_tape.system import atomic_files
from mlp_tape.system.redaction import without_password

PLANNED, OPTUNA = "hydra_plugins.mlp_tape.PlannedSweeper", "hydra_plugins.mlp_tape.OptunaSweeper"
Run = Callable[[Launcher], list[Any]]

_chosen = contextvars.ContextVar[Run]("run")


def run(launcher: Launcher) -> list[Any]:
    """Runs what was planned, and returns the results of the jobs.

    Raises:
        RuntimeError: nothing was planned, as the sweeper is used by another program than this one.
    """
    if _chosen.get(None) is None:
        raise RuntimeError("the sweepers of mlp_tape only run its own jobs")
    return _chosen.get()(launcher)


def use(config: DictConfig, run: Run) -> None:
    """Lets Hydra run what was planned.

    Args:
        config: config of the sweep, composed by Hydra; changed in place.
        run: function that runs the jobs with a launcher.
    """
    written = without_password(OmegaConf.to_yaml(config))

    def run_recorded(launcher: Launcher) -> list[Any]:
        atomic_files.write_text(Path(config.hydra.sweep.dir) / run_paths.HYDRA_SWEEP, written)
        return run(launcher)

    _chosen.set(run_recorded)
    if str(config.hydra.sweeper._target_) != OPTUNA:
        with read_write(config), open_dict(config):
            config.hydra.sweeper._target_ = PLANNED


def of_plan(jobs: list[PlannedJob], batch: int | None) -> Run:
    """Returns the function that runs the jobs of a plan.

    Args:
        jobs: the jobs.
        batch: maximum number of jobs that are launched together; None for all.
    """
    return functools.partial(_launch, jobs, batch or max(1, len(jobs)))


def _launch(jobs: list[PlannedJob], size: int, launcher: Launcher) -> list[Any]:
    overrides, results = [job.overrides for job in jobs], list[Any]()
    piece = 1 if hydra_internals.keeps_configs(launcher) else size
    for start in range(0, len(overrides), size):
        end = min(start + size, len(overrides))
        returned = list[JobReturn]()
        for first in range(start, end, piece):
            launched = launcher.launch(overrides[first : min(first + piece, end)], initial_job_idx=first)
            for job in launched:
                job.cfg = job.hydra_cfg = None  # 0.1 MB a job
            returned += launched
        results += [job.return_value for job in returned]
    return results
