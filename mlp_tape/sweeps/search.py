"""The loop of a search: proposes trials, launches their jobs, and records what came of them in the study."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlp_tape.config.settings import FREE, Settings, flatten, format_value
from mlp_tape.errors import BrokenFileError, ConfigError, MlpTapeError
from mlp_tape.runs.checks import check_fit
from mlp_tape.storage import run_paths, run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps import monitor, objectives
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.plan import PlannedJob
from mlp_tape.sweeps.study import Study, Trial
from mlp_tape.sweeps.summary import first_line, spoken
from mlp_tape.system import formatting, signals
from mlp_tape.system.formatting import count

LAUNCHES = 3  # of a job whose process is killed, in one process of the sweep

Launch = Callable[[list[list[str]], int], Any]  # runs jobs with these overrides, numbered from a number
Compose = Callable[[dict[str, Any], int, int], PlannedJob]  # params, index of the seed, number of the job


def recorded(search: dict[str, Any], settings: Settings, directory: Path) -> dict[str, Any]:
    """Returns `RunRecord.search` of a search that begins or is resumed, and creates its study.

    Args:
        search: what the command line says of the search.
        settings: settings of the first job, as `SweepDirectory.resolved` returns them.
        directory: directory of the sweep.

    Raises:
        ConfigError: the directory has the study of another search, or the jobs of a sweep without one.
    """
    decisive = {key: value for key, value in flatten(settings) if key == "epochs" or not key.startswith(FREE)}
    found = search | {"objectives": objectives.chosen(settings), "settings": decisive}
    if not (directory / run_paths.STUDY).exists() and (directory / run_paths.JOBS).exists():
        raise ConfigError(
            f"{directory} has no {run_paths.STUDY}: its jobs are not those of a search",
            "start a new search, without sweep.resume",
        )
    study = Study(directory, found)
    for key, before in study.recorded.items():
        if before != found[key]:
            raise ConfigError(
                f"{_difference(key, before, found[key])}, so that its trials could not be compared",
                "leave it out, or start a new search without sweep.resume",
            )
    return found


def _difference(key: str, before: Any, now: Any) -> str:
    """Describes in what a search differs from the one that is to be resumed."""
    if key == "settings":
        name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        return f"{name}={format_value(now.get(name))}, but the search has {format_value(before.get(name))}"
    if key == "space":
        old, new = ({each["name"]: each for each in space} for space in (before, now))
        name = next((name for name in {**old, **new} if old.get(name) != new.get(name)), "")
        return (
            f"the values of {name} are not those of the search" if name else "the order of settings changed"
        )
    names = {"objectives": "sweep.choose_by or sweep.objectives", "seeds": "the seeds"}
    shown = [format_value(each) for each in (now, before)]
    return f"{names[key]}: {shown[0]}, but the search has {shown[1]}"


@dataclass
class Search:
    """A search in progress.

    Args:
        search: `RunRecord.search` of the sweep.
        jobs: directory of the sweep.
        compose: function that composes and validates a job.
        launch: function that runs jobs, and returns when they have ended.
        say: receives a line for each trial.
    """

    search: dict[str, Any]
    jobs: SweepDirectory
    compose: Compose
    launch: Launch
    say: Callable[[str], None]
    _given_up: set[int] = field(default_factory=set)  # trials with a job that failed

    def run(self) -> None:
        """Runs trials until there are enough, the time is over, or the sweep is to stop."""
        self._study = Study(self.jobs.directory, self.search)
        self._began, self._ended = time.monotonic(), 0
        while not self._is_stopped() and (batch := self._batch()):
            self._run(batch)

    @property
    def _rounds(self) -> int:
        return max(1, len(self.search["seeds"]))

    def _is_stopped(self) -> bool:
        return bool(signals.received()) or self.jobs.stop_file.exists()

    def _batch(self) -> list[Trial]:
        """Returns the trials to run next: those that were begun before, then new ones."""
        size, timeout = self.search["n_jobs"], self.search["timeout"]
        found = [each for each in self._study.unfinished if each.number not in self._given_up][:size]
        while len(found) < size and len(self._study.trials) < self._study.most:
            if timeout and time.monotonic() - self._began >= timeout:
                break
            self._add_trial()
            found += self._study.trials[-1:] if not self._study.trials[-1].state.is_finished() else []
        return found

    def _add_trial(self) -> None:
        """Proposes and stores a trial, which has failed if its settings are not valid."""
        proposal = self._study.propose()
        number = proposal.number * self._rounds
        try:
            planned = [self.compose(proposal.params, i, number + i) for i in range(self._rounds)]
            settings = [self.jobs.resolved(each.settings) for each in planned]
            for each in settings:
                dataset = self.jobs.dataset(each.dataset)
                check_fit(each, dataset)
                objectives.check_measurable(self.search["objectives"], each, dataset)
        except Exception as error:  # Hydra's, of several kinds, or a ConfigError
            what = error.what if isinstance(error, MlpTapeError) else first_line(str(error))
            self._study.reject(proposal, what)
            self.say(f"trial {proposal.number}  {_written(proposal.params)}  FAILED: {what}")
            return
        self._study.add(proposal, [self.jobs.identity(each) for each in settings], settings[0].epochs)

    def _run(self, trials: list[Trial]) -> None:
        """Runs the jobs of trials: those of the first seed of all, then those of the second, and so on."""
        values: dict[int, list[list[float]]] = {each.number: [] for each in trials}
        for i in range(self._rounds):
            records = self._launched(trials, i)
            if self._is_stopped():
                trials = [each for each in trials if _is_over(records.get(each.number))]
            still = []
            for trial in trials:
                found = self._outcome(trial, records.get(trial.number))
                if found is not None:
                    values[trial.number].append(found)
                    still.append(trial)
            trials = still
            for trial in trials:
                if i + 1 < self._rounds and len(self.search["directions"]) == 1:
                    self._study.set_seeds(trial, [each[0] for each in values[trial.number]])
            if self._is_stopped() and i + 1 < self._rounds:
                return
        for trial in trials:
            means = [statistics.fmean(each) for each in zip(*values[trial.number], strict=True)]
            self._study.complete(trial, means)
            self._tell(trial)

    def _launched(self, trials: list[Trial], i: int) -> dict[int, RunRecord]:
        """Runs the jobs of a seed that are not over, and returns the records of all.

        A job whose process was killed is launched again, to go on from its last checkpoint.
        """
        planned: dict[int, tuple[PlannedJob, Path]] = {}
        for trial in trials:
            number = trial.number * self._rounds + i
            job = self.compose(trial.params, i, number)
            settings = self.jobs.resolved(job.settings)
            planned[trial.number] = job, self.jobs.claim(settings, number, job.folder)
        records: dict[int, RunRecord] = {}
        for attempt in range(LAUNCHES):
            records = {number: each for number, (_, path) in planned.items() if (each := _record(path))}
            left = {
                path: (number, job)
                for number, (job, path) in reversed(planned.items())
                if not _is_over(records.get(number), retry=attempt == 0)
            }
            if not left or self._is_stopped():
                break
            launched = sorted(left.values(), key=lambda each: each[0])
            self.launch([job.overrides for _, job in launched], launched[0][0] * self._rounds + i)
            records = {number: each for number, (_, path) in planned.items() if (each := _record(path))}
        return records

    def _outcome(self, trial: Trial, record: RunRecord | None) -> list[float] | None:
        """Returns the objectives of a job that finished; otherwise records in the study how it ended."""
        if record is None or record.status != "FINISHED":
            reason = first_line(record.reason) if record else "its job did not begin"
            if record and record.has_diverged:
                self._study.diverge(trial, reason)
                self._tell(trial, f"FAILED: {reason}")
            else:
                self._given_up.add(trial.number)
            return None
        if record.pruned:
            self._study.prune(trial)
            self._tell(trial, f"pruned after {count(record.pruned, 'epoch')}")
            return None
        values = list[float]()
        for key in self.search["objectives"]:
            value = record.metric(key)
            if value is None or not math.isfinite(value):
                self._study.fail(trial, f"its {spoken(key)} is {value}")
                self._tell(trial)
                return None
            values.append(value)
        return values

    def _tell(self, trial: Trial, what: str = "") -> None:
        """Prints what came of a trial, the best one so far, and how long the search may still take."""
        self._ended += 1
        trials, most = self._study.trials, self.search["n_trials"]
        trial = trials[trial.number]
        keys = self.search["objectives"]
        if not what and trial.values:
            told = zip(keys, trial.values, strict=True)
            what = "  ".join(f"{spoken(key)} {value:.4f}" for key, value in told)
        what = what or f"FAILED: {trial.user_attrs.get('reason', '')}"
        numbered = f"trial {trial.number}" + (f" of {most}" if most else "")
        parts = [numbered, _written(trial.params), what]
        complete = [each for each in trials if each.state.name == "COMPLETE"]
        if complete and len(keys) == 1:
            sign = 1 if self.search["directions"][0] == "minimize" else -1
            best = min(complete, key=lambda each: sign * each.values[0])
            parts.append(f"best {best.values[0]:.4f}, trial {best.number}")
        left = most - sum(each.state.is_finished() for each in trials) if most else 0
        if left > 0:
            seconds = (time.monotonic() - self._began) / self._ended * left
            if self.search["timeout"]:
                seconds = min(seconds, self.search["timeout"] - (time.monotonic() - self._began))
            parts.append(f"about {_duration(max(0.0, seconds))} left")
        self.say("  ".join(parts))


def _duration(seconds: float) -> str:
    """Returns a duration for people, such as `40 s` or `3 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _written(params: dict[str, Any]) -> str:
    return " ".join(f"{key}={formatting.value(value)}" for key, value in params.items())


def _record(directory: Path) -> RunRecord | None:
    """Returns the record of a job; None if it has none, as it did not begin."""
    try:
        return monitor.current(run_record.read(directory))
    except (ConfigError, BrokenFileError):
        return None


def _is_over(record: RunRecord | None, retry: bool = False) -> bool:
    """Returns whether a job has a result, or has failed.

    Args:
        record: its record; None if it has none.
        retry: whether a job that failed is tried again, except one that diverged, and would do so again.
    """
    if record is None or record.status not in ("FINISHED", "FAILED"):
        return False
    return record.status == "FINISHED" or not retry or record.has_diverged
