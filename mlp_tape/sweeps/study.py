"""The study of a search: Optuna's proposals, pruning decisions and results, kept in the sweep's directory.

The study is a journal of Optuna (`study.log`), which `optuna-dashboard` opens. A search that is killed at any
moment and resumed has the history of one that was not, as long as one job runs at a time:

- A trial is stored with all its parameters by one append. Samplers are asked for them before that, and what
  they write meanwhile is kept back and stored in the same append.
- Samplers have no memory of their own: each proposal has a new one, seeded by the number of the trial.
- A decision to prune is stored by one append, before what the pruner writes, and is found again by a job
  that was killed after it.
"""

import functools
import itertools
import math
import os
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from mlp_tape.storage import run_paths
from mlp_tape.sweeps.space import CATEGORICAL, INT, Parameter

NAME = "search"  # of the study in its file; Hyperband assigns brackets by it
JOBS, EPOCHS, SEEDS, REASON, OF_STUDY, SEARCH = "jobs", "epochs", "seeds", "reason", "of_study", "search"
DECISION = "decision:"
COMPARED = ("space", "objectives", "seeds", "settings")  # what must not differ when a search is resumed

Trial = Any  # optuna.trial.FrozenTrial


@dataclass(frozen=True)
class Proposal:
    """A trial that is not stored yet.

    Attributes:
        number: number of the trial.
        params: value of each parameter.
        attrs: attributes that the sampler wrote.
    """

    number: int
    params: dict[str, Any]
    attrs: dict[str, Any]


class Study:
    """The study of a search.

    Args:
        sweep: directory of the sweep; must exist.
        search: `RunRecord.search` of the sweep.
    """

    def __init__(self, sweep: Path, search: dict[str, Any]) -> None:
        import optuna

        self._search = search
        self.space = [Parameter(**each) for each in search["space"]]
        self._distributions = {each.name: _distribution(each) for each in self.space}
        self._storage = _opened(sweep)
        try:
            self._id = self._storage.get_study_id_from_name(NAME)
        except KeyError:
            directions = [optuna.study.StudyDirection[each.upper()] for each in search["directions"]]
            self._id = self._storage.create_new_study(directions, NAME)
        if SEARCH not in self._storage.get_study_user_attrs(self._id):
            self._storage.set_study_user_attr(self._id, SEARCH, {key: search[key] for key in COMPARED})

    @property
    def recorded(self) -> dict[str, Any]:
        """What the search was started with, as far as it must not differ when it is resumed."""
        return dict(self._storage.get_study_user_attrs(self._id)[SEARCH])

    @property
    def trials(self) -> list[Trial]:
        """All trials, ordered by number; not to be changed."""
        return list(self._storage.get_all_trials(self._id, deepcopy=False))

    @property
    def unfinished(self) -> list[Trial]:
        """The trials that have no result, ordered by number."""
        return [trial for trial in self.trials if not trial.state.is_finished()]

    @property
    def most(self) -> int:
        """Maximum number of trials: `n_trials`, but not more than a grid has points."""
        most = self._search["n_trials"] or 10**9
        if self._search["sampler"]["name"] == "grid":
            most = min(most, math.prod(each.size or 1 for each in self.space))
        return int(most)

    def propose(self) -> Proposal:
        """Returns the next trial, which is not stored."""
        import optuna

        number = len(self.trials)
        if self._search["sampler"]["name"] == "grid":
            return Proposal(number, self._point(number), {})
        sampler, view = self._sampler(number), _KeepsBack(self._storage, self._id)
        trial = self._trial(number, optuna.trial.TrialState.RUNNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parameters that are sampled independently, and experiments
            study = optuna.load_study(study_name=NAME, storage=view, sampler=sampler)
            relative = sampler.infer_relative_search_space(study, trial)
            found = sampler.sample_relative(study, trial, relative)
            params = {
                name: found[name]
                if name in found
                else sampler.sample_independent(study, trial, name, distribution)
                for name, distribution in self._distributions.items()
            }
        attrs = view.attrs | ({OF_STUDY: view.of_study} if view.of_study else {})
        return Proposal(number, params, attrs)

    def _point(self, number: int) -> dict[str, Any]:
        """Returns the parameters of a point of the grid; the last parameter varies fastest."""
        indices = itertools.product(*(range(each.size or 1) for each in self.space))
        found = next(itertools.islice(indices, number, None))
        return {each.name: each.at(index) for each, index in zip(self.space, found, strict=True)}

    def _sampler(self, number: int) -> Any:
        from optuna import samplers

        options = dict(self._search["sampler"])
        name, first = options.pop("name"), options.pop("seed")
        # Scrambled sequences continue only with the same seed.
        seed = first if name == "qmc" else int(np.random.SeedSequence([first, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental in some versions of Optuna
            if name == "random":
                return samplers.RandomSampler(seed=seed)
            if name == "tpe":  # the defaults of Optuna 5, also with Optuna 4
                joint = len(self._search["directions"]) == 1
                return samplers.TPESampler(seed=seed, multivariate=joint, constant_liar=True, **options)
            kinds = {"cmaes": samplers.CmaEsSampler, "qmc": samplers.QMCSampler, "gp": samplers.GPSampler}
            return kinds[name](seed=seed, warn_independent_sampling=False, **options)

    def _trial(self, number: int, state: Any, **values: Any) -> Trial:
        import optuna

        ended = datetime.now() if state.is_finished() else None
        empty: dict[str, Any] = {"params": {}, "distributions": {}, "user_attrs": {}, "system_attrs": {}}
        known = empty | {"intermediate_values": {}, "value": None, "trial_id": -1} | values
        began = datetime.now()
        return optuna.trial.FrozenTrial(
            number=number, state=state, datetime_start=began, datetime_complete=ended, **known
        )

    def _store(self, proposal: Proposal, state: Any, user_attrs: dict[str, Any]) -> None:
        template = self._trial(
            proposal.number,
            state,
            params=proposal.params,
            distributions=self._distributions,
            user_attrs=user_attrs,
            system_attrs=proposal.attrs,
        )
        self._storage.create_new_trial(self._id, template)

    def add(self, proposal: Proposal, jobs: list[str], epochs: int) -> None:
        """Stores a trial, which is then running.

        Args:
            proposal: the trial.
            jobs: identity of its job for each seed.
            epochs: number of epochs of each job.
        """
        import optuna

        self._store(proposal, optuna.trial.TrialState.RUNNING, {JOBS: jobs, EPOCHS: epochs})

    def reject(self, proposal: Proposal, reason: str) -> None:
        """Stores a trial that cannot be run."""
        import optuna

        self._store(proposal, optuna.trial.TrialState.FAIL, {REASON: reason})

    def set_seeds(self, trial: Trial, values: list[float]) -> None:
        """Stores the values of the first seeds of a trial, whose jobs have finished."""
        if trial.user_attrs.get(SEEDS) != values:
            self._storage.set_trial_user_attr(trial._trial_id, SEEDS, values)

    def complete(self, trial: Trial, values: list[float]) -> None:
        """Stores the result of a trial, one value for each objective."""
        self._end(trial, "COMPLETE", values)

    def prune(self, trial: Trial) -> None:
        """Stores that a trial was pruned, with its last intermediate value, as Optuna does."""
        trial = self._storage.get_trial(trial._trial_id)
        last = trial.last_step
        values = [] if last is None else [trial.intermediate_values[last]]
        self._end(trial, "PRUNED", values if values and math.isfinite(values[0]) else None)

    def fail(self, trial: Trial, reason: str) -> None:
        """Stores that a trial failed, and why."""
        if trial.user_attrs.get(REASON) != reason:
            self._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
        self._end(trial, "FAIL", None)

    def diverge(self, trial: Trial, reason: str) -> None:
        """Stores that the training of a trial diverged, and why.

        It counts as pruned without a result, which is worse than any: samplers ignore trials that failed, and
        would propose such settings again and again.
        """
        if trial.user_attrs.get(REASON) != reason:
            self._storage.set_trial_user_attr(trial._trial_id, REASON, reason)
        self._end(trial, "PRUNED", None)

    def _end(self, trial: Trial, state: str, values: list[float] | None) -> None:
        import optuna

        _apply_decisions(self._storage, trial._trial_id)
        self._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState[state], values)


def pruning(sweep: Path, search: dict[str, Any], identity: str) -> Callable[[int, float], bool] | None:
    """Returns the function by which a job reports the end of an epoch, in any process.

    Args:
        sweep: directory of the sweep.
        search: `RunRecord.search` of the sweep; empty if it is not a search.
        identity: identity of the job.

    Returns:
        A function of the epoch, from 0, and the value of the objective after it, that returns whether the
        job is to end as pruned. To be called before the checkpoint of that epoch is saved; of an epoch that
        was reported before, it returns the same again. None if nothing is pruned.
    """
    if not search or search["pruner"]["name"] == "none" or len(search["directions"]) > 1:
        return None
    study = Study(sweep, search)
    storage = study._storage
    trial = next((each for each in study.unfinished if identity in each.user_attrs.get(JOBS, [])), None)
    if trial is None:
        return None
    seed, epochs = trial.user_attrs[JOBS].index(identity), trial.user_attrs[EPOCHS]
    pruner = _of_length(search["pruner"], epochs, len(trial.user_attrs[JOBS]))
    steps = epochs * len(trial.user_attrs[JOBS])
    before = trial.user_attrs.get(SEEDS, [])[:seed]

    def report(epoch: int, value: float) -> bool:
        step = seed * epochs + epoch
        trial_id = trial._trial_id
        known = _apply_decisions(storage, trial_id)
        last = known.last_step
        if last is None or step > last:
            storage.set_trial_intermediate_value(trial_id, step, statistics.fmean([*before, value]))
        elif step < last or _decision(step) in known.system_attrs:
            return bool(known.system_attrs.get(_decision(step), {}).get("prune", False))
        return _decide(study, pruner, trial_id, step, steps)

    return report


def _decision(step: int) -> str:
    """Returns the attribute in which the decision after a step is stored."""
    return f"{DECISION}{step}"


def _decide(study: Study, pruner: dict[str, Any], trial_id: int, step: int, steps: int) -> bool:
    """Returns whether a trial is pruned after a step, and stores that unless nothing follows from it.

    A trial is not pruned after its last step, of which nothing would be saved.
    """
    import optuna

    view = _KeepsBack(study._storage, study._id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = optuna.load_study(study_name=NAME, storage=view, sampler=optuna.samplers.RandomSampler())
    is_worse = _pruner(pruner).prune(seen, study._storage.get_trial(trial_id))
    prune = bool(is_worse) and step + 1 < steps
    if prune or view.attrs:
        decision = {"prune": prune, "attrs": view.attrs}
        study._storage.set_trial_system_attr(trial_id, _decision(step), decision)
        _apply_decisions(study._storage, trial_id)
    return prune


def _apply_decisions(storage: Any, trial_id: int) -> Trial:
    """Stores what a pruner wrote with its decisions, as far as a kill prevented it; returns the trial."""
    trial = storage.get_trial(trial_id)
    for key, decision in trial.system_attrs.items():
        if key.startswith(DECISION):
            for name, value in decision["attrs"].items():
                if name not in trial.system_attrs:
                    storage.set_trial_system_attr(trial_id, name, value)
    return storage.get_trial(trial_id)


def _of_length(pruner: dict[str, Any], epochs: int, seeds: int) -> dict[str, Any]:
    """Returns name and settings of a pruner with those that depend on the length of a trial.

    The first third of the epochs says little about the last: with Adam on MNIST, the trials that are ahead
    after an epoch are those with the least dropout.

    Args:
        pruner: name and settings, as the search records them.
        epochs: number of epochs of each job.
        seeds: number of jobs of a trial.
    """
    if pruner["name"] == "hyperband":  # Optuna would derive it from the trials so far
        return pruner | {"max_resource": epochs * seeds}
    if pruner.get("n_warmup_steps", 0) is None:
        return pruner | {"n_warmup_steps": epochs // 3}
    return pruner


def _pruner(pruner: dict[str, Any]) -> Any:
    from optuna import pruners

    options = dict(pruner)
    kinds = {
        "median": pruners.MedianPruner,
        "successive_halving": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
    }
    return kinds[options.pop("name")](**options)


def _distribution(parameter: Parameter) -> Any:
    """Returns a parameter as Optuna describes it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == CATEGORICAL:
        return CategoricalDistribution(parameter.choices)
    if parameter.kind == INT:
        low, high = int(parameter.low), int(parameter.high)
        return IntDistribution(low, high, parameter.log, int(parameter.step or 1))
    return FloatDistribution(parameter.low, parameter.high, parameter.log, parameter.step)


class _KeepsBack:
    """A view of a storage for samplers and pruners that keeps back what they write.

    Args:
        storage: the storage, to which everything else is passed on.
        study_id: id of the study.

    Attributes:
        attrs: attributes of the trial that were written.
        of_study: attributes of the study that were written; they are stored in those of the trial.
    """

    def __init__(self, storage: Any, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        self.attrs: dict[str, Any] = {}
        self.of_study: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.attrs[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.of_study[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        found = dict(self._storage.get_study_system_attrs(study_id))
        for trial in self._storage.get_all_trials(study_id, deepcopy=False):
            found |= trial.system_attrs.get(OF_STUDY, {})
        return found | self.of_study


def _opened(sweep: Path) -> Any:
    """Returns the storage of a study, which is read once by a process and kept for its next job."""
    path = sweep / run_paths.STUDY
    with path.open("ab"):
        return _storage(path, path.stat().st_ino)


@functools.lru_cache(maxsize=1)
def _storage(path: Path, inode: int) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lock = _Lock(path)
    lock.acquire()
    lock.release()
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock))


class _Lock:
    """A lock of a journal, for Optuna, that is free again when the process that holds it is killed.

    The locks of Optuna are free again after 30 seconds. A line of which such a process had written a part is
    removed.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, filelock.FileLock(path.with_name(run_paths.STUDY_LOCK))

    def acquire(self) -> bool:
        self._lock.acquire()
        _remove_incomplete_line(self._path)
        return True

    def release(self) -> None:
        self._lock.release()


def _remove_incomplete_line(path: Path) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
            content = path.read_bytes()
            file.truncate(content.rfind(b"\n") + 1)
