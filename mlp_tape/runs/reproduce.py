"""Reproduction: trains a run again from what is recorded of it, and compares both value by value."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlp_tape.config.settings import Settings
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import DivergenceError
from mlp_tape.runs.comparison import VERDICT, Comparison
from mlp_tape.runs.pruning import Pruning
from mlp_tape.runs.recorded import Recorded, Weights
from mlp_tape.runs.run import execute_run, resolved
from mlp_tape.runs.verdict import IDENTICAL
from mlp_tape.storage import run_paths, run_record
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.system import provenance
from mlp_tape.system.formatting import count
from mlp_tape.system.provenance import Environment
from mlp_tape.tracking.uri import may_exist

Say = Callable[[str], None]
REPRODUCES, REPRODUCED = "reproduces", "reproduced"  # MLflow tags of the new run and of the old one
COMPUTES = ("tensorflow", "numpy", "ml_dtypes", "scipy", "pillow")  # packages that compute
SHOWN = 8  # other packages of which the versions are shown
IGNORED = ("platform", "cores")  # facts that have no effect on results
SINCE = ("instructions", "processor", "threads", "commit")  # facts that earlier versions did not record


@dataclass(frozen=True)
class Reproduction:
    """The result of a reproduction.

    Attributes:
        verdict: verdict of the comparison.
        is_equal: whether the run was reproduced, and nothing is wrong with what is recorded of it.
        directory: directory of the new run.
        run_id: its MLflow run id; empty if it is not tracked.
        problems: what is wrong with what is recorded of the earlier run, a line each.
        explanation: which part of a step was the first that differed, a line each.
    """

    verdict: str
    is_equal: bool
    directory: Path
    run_id: str
    problems: list[str] = field(default_factory=list)
    explanation: list[str] = field(default_factory=list)


def differences(then: Environment, now: Environment) -> list[tuple[str, str, str]]:
    """Returns in which facts and packages two environments differ: name, value then, value now.

    Of packages other than those of COMPUTES, at most SHOWN are named. What an earlier version did not record
    is not known to differ.
    """
    keys = [key for key in {**then.facts, **now.facts} if key not in IGNORED]
    facts = _differing(then.facts, now.facts, keys)
    facts = [each for each in facts if each[1] or each[0] not in SINCE]
    if not then.packages:
        return facts
    names = sorted({*then.packages, *now.packages} - {"mlp_tape", *COMPUTES})
    others = _differing(then.packages, now.packages, names)
    found = facts + _differing(then.packages, now.packages, COMPUTES) + others[:SHOWN]
    if len(others) > SHOWN:
        found.append((f"and {count(len(others) - SHOWN, 'other package')}", "", ""))
    return found


def _differing(
    then: Mapping[str, str], now: Mapping[str, str], names: Iterable[str]
) -> list[tuple[str, str, str]]:
    pairs = ((name, then.get(name, ""), now.get(name, "")) for name in names)
    return [(name, a, b) for name, a, b in pairs if a != b]


def reproduce(
    run: Recorded,
    settings: Settings,
    dataset: Dataset,
    command: Command,
    say: Say,
    epochs: int | None = None,
) -> Reproduction:
    """Trains a run again, and compares it with what is recorded of it as it goes.

    Args:
        run: the earlier run.
        settings: settings of the new run, as returned by `new_settings`.
        dataset: its data.
        command: what repeats the new run.
        say: prints a line.
        epochs: number of epochs to train; None for as many as the earlier run has trained.

    Raises:
        MlpTapeError: the run cannot be trained here.
    """
    per_epoch = resolved(settings, dataset)[1].steps_per_epoch(settings.batch_size)
    begun = run.epochs(per_epoch) or settings.epochs
    wanted = min(epochs or begun, begun)
    ends = Pruning("accuracy", lambda epoch, _: epoch + 1 >= wanted, _why(run, wanted, begun))
    comparison = Comparison(
        run.evidence, per_epoch, ends if wanted < settings.epochs else None, settings.precision
    )
    directory = run_paths.new()
    directory.mkdir(parents=True)
    try:
        execute_run(settings, directory, command, dataset=dataset, comparison=comparison)
    except DivergenceError as error:
        say(f"the training diverged: {error.what}")
    except BaseException:
        run_record.forget(directory)
        raise
    problems = list(run.problems)
    if comparison.verdict == IDENTICAL and wanted == begun:
        problems += list(_other_weights(run, directory))
    new = run_record.read(directory)
    _tag(run, new, comparison.verdict, problems)
    return Reproduction(
        verdict=comparison.verdict,
        is_equal=comparison.is_equal and not problems,
        directory=directory,
        run_id=new.run_id,
        problems=problems,
        explanation=comparison.explanation(),
    )


def new_settings(run: Recorded, settings: Settings) -> Settings:
    """Returns the settings of a run that repeats another: it registers no model, and has no plots.

    Args:
        run: the earlier run.
        settings: its settings, with those of the new run for tracking and the location of the data.
    """
    tracking = dataclasses.replace(settings.tracking, register_as=None, system_metrics=False)
    return dataclasses.replace(
        settings,
        tracking=tracking,
        report="none" if settings.report == "none" else "light",
        resume=None,
        run_name=f"reproduction of {run.name}"[:80],
        tags={REPRODUCES: run.run_id or str(run.directory)},
        note=None,
    )


def _why(run: Recorded, wanted: int, begun: int) -> str:
    if wanted < begun:
        return f"of {begun}, as no more were to be compared"
    return f"as the run {run.name} ended there"


def _other_weights(run: Recorded, directory: Path) -> Iterator[str]:
    """Yields a line for each recorded parameter that differs from that of the new run."""
    path = directory / run_paths.WEIGHTS
    if not path.exists():
        return
    with np.load(path, allow_pickle=False) as archive:
        here: Weights = dict(archive)
    for place, there in run.weights.items():
        for name in sorted({*here, *there}):
            a, b = there.get(name), here.get(name)
            if a is None or b is None or a.shape != b.shape:
                yield f"{place}: {run_paths.WEIGHTS} has another {name}"
                continue
            other = np.argwhere(~((a == b) | (np.isnan(a) & np.isnan(b))))
            if len(other):
                first = tuple(int(i) for i in other[0])
                yield (
                    f"{place}: {run_paths.WEIGHTS} has another {name}: {count(len(other), 'value')} of "
                    f"{a.size:,}, the first at {list(first)}: recorded {a[first]!r}, here {b[first]!r}"
                )


def _tag(run: Recorded, new: RunRecord, verdict: str, problems: list[str]) -> None:
    """Writes the verdict on the pages of both runs, as far as they can be reached."""
    from mlp_tape.mlflow_backend import recorded_runs

    more = f"; {count(len(problems), 'problem')} with what is recorded" if problems else ""
    if run.run_id and new.settings["tracking"]["enabled"] and may_exist(run.uri):
        by = new.run_id or new.directory
        recorded_runs.set_tags(run.uri, run.run_id, {REPRODUCED: f"{verdict}{more}, by {by}"})
    if more and new.run_id and may_exist(new.store):
        recorded_runs.set_tags(new.store, new.run_id, {VERDICT: verdict + more})


def changed_environment(run: Recorded) -> list[tuple[str, str, str]]:
    """Returns in what this environment differs from that of a run."""
    return differences(run.environment, provenance.environment())
