"""The loop of a search: proposes trials, has their jobs run, and tells the study what came of them."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlp_tape.config.metrics import direction
from mlp_tape.config.settings import FREE, Settings, flatten
from mlp_tape.errors import ConfigError
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps import monitor, objectives
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.plan import Plan
from mlp_tape.sweeps.study import JOBS, Study, Trial
from mlp_tape.system.formatting import count

ATTEMPTS = 3  # to run a job whose process was killed


@dataclass
class Search:
    """A search, whose state is in the directory of its sweep.

    Attributes:
        study: the study.
        jobs: directory of the sweep.
        overrides: function of the parameters of a trial, and the index of a seed, that returns the overrides
            of a job.
        settings: function of the overrides of a job that composes and validates its settings.
        launch: function of the overrides of some jobs, and the number of the first, that runs them.
        seeds: number of seeds of each trial.
        n_jobs: number of concurrent trials.
        timeout: number of seconds after which no further trial begins; None for no limit.
        say: called with a message for the user.
    """

    study: Study
    jobs: SweepDirectory
    overrides: Callable[[dict[str, Any], int], list[str]]
    settings: Callable[[list[str]], Settings]
    launch: Callable[[list[list[str]], int], Any]
    seeds: int
    n_jobs: int
    timeout: float | None
    say: Callable[[str], None]

    def run(self) -> None:
        """Runs trials, first those that an earlier process has left, until there are enough of them."""
        began, left = time.monotonic(), self.study.unfinished
        while not self.jobs.stop_file.exists():
            batch, left = left[: self.n_jobs], left[self.n_jobs :]
            while len(batch) < self.n_jobs and len(self.study.trials) < self.study.most:
                if self.timeout is not None and time.monotonic() - began >= self.timeout:
                    break
                trial = self._new_trial()
                batch += [trial] if trial else []
            if not batch:
                return
            self._run(batch)

    def _new_trial(self) -> Trial | None:
        """Adds a trial to the study; returns None if it is not valid."""
        proposal = self.study.propose()
        try:
            overrides = [self.overrides(proposal.params, seed) for seed in range(self.seeds)]
            settings = [self.jobs.resolved(self.settings(each)) for each in overrides]
        except ConfigError as error:
            self.say(f"trial {proposal.number} is not valid: {error.what}")
            self.study.reject(proposal, error.what)
            return None
        self.study.add(proposal, [self.jobs.identity(each) for each in settings], settings[0].epochs)
        return self.study.trials[proposal.number]

    def _run(self, batch: list[Trial]) -> None:
        """Runs the jobs of trials, for one seed after the other."""
        for seed in range(self.seeds):
            for _ in range(ATTEMPTS):
                waiting = {
                    trial.user_attrs[JOBS][seed]: trial for trial in batch if self._is_to_run(trial, seed)
                }
                if not waiting or self.jobs.stop_file.exists():
                    break
                trials = list(waiting.values())
                number = (
                    min(trial.number for trial in trials) if self.seeds == 1 else self.jobs.number_of_jobs
                )
                self.launch([self.overrides(trial.params, seed) for trial in trials], number)
            batch = [trial for trial in batch if self._goes_on(trial, seed)]
        for trial in batch:
            self._complete(trial)

    def _record(self, trial: Trial, seed: int) -> RunRecord | None:
        found = self.jobs.find(trial.user_attrs[JOBS][seed])
        return monitor.current(found) if found else None

    def _is_to_run(self, trial: Trial, seed: int) -> bool:
        """Returns whether the job of a trial has not ended; one whose process was killed has not."""
        job = self._record(trial, seed)
        return job is None or job.status not in ("FINISHED", "FAILED") or self._is_to_be_tried_again(job)

    def _is_to_be_tried_again(self, job: RunRecord) -> bool:
        """Returns whether a job failed before this process, for a reason that may not exist any more."""
        return job.status == "FAILED" and not _has_diverged(job) and job.ended < self._began

    def __post_init__(self) -> None:
        self._began = time.time()

    def _goes_on(self, trial: Trial, seed: int) -> bool:
        """Tells the study how a job ended; returns whether the trial goes on with its next seed.

        A trial whose job failed for another reason than its settings is left unfinished, so that a resumed
        search tries it again.
        """
        job = self._record(trial, seed)
        if job is None or job.status != "FINISHED":
            if job and _has_diverged(job):
                self.study.fail(trial, job.reason)
            return False
        if job.pruned:
            self.study.prune(trial)
            return False
        if self.seeds > 1:
            self.study.set_seeds(trial, [each[0] for each in self._values(trial, seed + 1)])
        return True

    def _complete(self, trial: Trial) -> None:
        try:
            values = self._values(trial, self.seeds)
        except KeyError as error:
            self.study.fail(trial, f"{error.args[0]} was not measured")
            return
        self.study.complete(trial, [statistics.fmean(each) for each in zip(*values, strict=True)])

    def _values(self, trial: Trial, seeds: int) -> list[list[float]]:
        """Returns the values of the objectives of the first seeds of a trial, which have finished."""
        return [self._measured(trial, seed) for seed in range(seeds)]

    def _measured(self, trial: Trial, seed: int) -> list[float]:
        job, values = self._record(trial, seed), list[float]()
        for metric in self.study.objectives:
            value = job.metric(metric) if job else None
            if value is None:
                raise KeyError(metric)
            values.append(value)
        return values


def recorded(plan: Plan, settings: Settings) -> dict[str, Any]:
    """Returns what the record of a sweep holds of its search, for its jobs and to compare when it is resumed.

    Args:
        plan: plan of the sweep.
        settings: settings of its first job, as `SweepDirectory.resolved` returns them.
    """
    metrics = objectives.chosen(settings)
    varied = {each["name"] for each in plan.search["space"]} | {plan.search["over"]}
    fixed = {
        key: value
        for key, value in flatten(settings)
        if (key == "epochs" or not key.startswith(FREE)) and not varied & {key, key.partition(".")[0]}
    }
    directions = [direction(metric) for metric in metrics]
    return plan.search | {"objectives": metrics, "directions": directions, "settings": fixed}


def number_of_jobs(jobs: SweepDirectory, search: dict[str, Any]) -> int | None:
    """Creates the study of a search, or checks that the one to resume has the same space and objectives.

    Returns:
        The maximum number of jobs; None if there is none.

    Raises:
        ConfigError: the study to resume differs.
    """
    study = Study(jobs.directory, search)
    known = study.recorded
    differ = [key for key, value in known.items() if value != search[key]]
    if not differ:
        is_limited = search["n_trials"] is not None or search["sampler"]["name"] == "grid"
        return study.most * max(1, len(search["seeds"])) if is_limited else None
    new_search = "leave it out, or start a new search without sweep.resume"
    if "objectives" in differ:
        raise ConfigError(f"the search has the objectives {', '.join(known['objectives'])}", new_search)
    for key in ("space", "settings"):
        before, now = _by_name(known[key]), _by_name(search[key])
        for name in [*now, *before]:
            if before.get(name) != now.get(name):
                had = "a fixed value" if name not in before else "another range or value"
                raise ConfigError(f"{name} is not what the search has, which is {had}", new_search)
    raise ConfigError(f"the search has {count(len(known['seeds']) or 1, 'seed')}: other ones", new_search)


def _by_name(values: Any) -> dict[str, Any]:
    return {each["name"]: each for each in values} if isinstance(values, list) else dict(values)


def _has_diverged(job: RunRecord) -> bool:
    return job.status == "FAILED" and job.reason.startswith("DivergenceError")
