"""The plan of a sweep: its jobs, known and validated before the first one starts."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlp_tape.config.settings import Settings, job_identity

TRACEBACK = "MLP_TAPE_TRACEBACK"  # environment variable: whether the tracebacks of failed jobs are printed
# Overrides that concern a whole sweep, or the place of a run, and are no part of the command of a single run.
OF_A_SWEEP = (
    "sweep.", "sweep=", "cluster=", "hydra.mode=", "hydra.run.dir=", "hydra.sweep", "hydra/sweeper=",
    "hydra.launcher", "hydra/launcher=", "hydra/sweeper/",
    "n_trials=", "timeout=", "n_jobs=", "direction=", "sampler=", "pruner=",
)  # fmt: skip


def is_of_a_sweep(override: str) -> bool:
    """Returns whether an override is no part of the command of a single run."""
    return override.lstrip("+~").startswith(OF_A_SWEEP)


@dataclass(frozen=True)
class PlannedJob:
    """A job that will be run.

    Attributes:
        overrides: its overrides.
        settings: its validated settings.
        folder: name of its directory within that of the sweep; `.` for a number.
    """

    overrides: list[str]
    settings: Settings
    folder: str = "."


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep.

    Attributes:
        jobs: the jobs; if they are not known in advance, jobs that together have each value of each swept
            setting.
        is_complete: whether the jobs are known in advance, and not selected by a search.
        equal: number of combinations that are equal to an earlier one, and are not run again.
        search: for a search, what `RunRecord.search` is to contain, as far as the command line says it.
        say: prints a line; set when the sweep is opened.
    """

    jobs: list[PlannedJob]
    is_complete: bool = True
    equal: int = 0
    search: dict[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = print

    @property
    def chooses(self) -> bool:
        """Whether jobs differ in more than their seed, so that the best of them can be chosen."""
        same_seed = [dataclasses.replace(job.settings, seed=0) for job in self.jobs]
        settings = {job_identity(each, each.dataset.path or "") for each in same_seed}
        return not self.is_complete or len(settings) > 1

    def resolved(self, resolve: Callable[[Settings], Settings]) -> "Plan":
        """Returns the plan with changed settings of its jobs."""
        jobs = [dataclasses.replace(job, settings=resolve(job.settings)) for job in self.jobs]
        return dataclasses.replace(self, jobs=jobs)

    def without_equal(self, identity: Callable[[Settings], str]) -> "Plan":
        """Returns the plan with one job of each identity, the first; unchanged if it is not complete."""
        if not self.is_complete:
            return self
        jobs: dict[str, PlannedJob] = {}
        for job in self.jobs:
            jobs.setdefault(identity(job.settings), job)
        return Plan(list(jobs.values()), equal=self.equal + len(self.jobs) - len(jobs))
