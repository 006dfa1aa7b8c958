"""Comparison of runs: the settings in which they differ, their results and their curves."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlp_tape.errors import ConfigError
from mlp_tape.reports import curve_plots
from mlp_tape.reports.style import Point
from mlp_tape.runs import resume
from mlp_tape.storage import journal
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS, TRAIN_LOSS
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.sweeps import monitor, summary
from mlp_tape.sweeps.directory import SweepDirectory
from mlp_tape.sweeps.summary import Table
from mlp_tape.system import formatting
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking import ui
from mlp_tape.tracking.ui import Link
from mlp_tape.tracking.uri import may_exist

KEYS = (TRAIN_LOSS, TEST_LOSS, TEST_ACCURACY)
MAX_COLUMNS = 6  # up to this number of runs, each has a column; more have a row each
MAX_LINKED = 50  # number of runs in a link
MAX_LENGTH = 30  # characters of a name, which is cut at its end, or of a value, which is cut at its beginning


@dataclass(frozen=True)
class Entry:
    """A run in a comparison.

    Attributes:
        label: name in the UI, or the name of its directory if it has none.
        identity: MLflow run id, or the directory of a run that was not tracked.
        params: MLflow params.
        outcome: status, duration and last metrics, formatted.
        losses: step and training loss.
        accuracies: step and test accuracy, 0 to 1.
        store: URI of the MLflow store that has the run; empty if there is none.
        experiment_id: MLflow experiment id; empty if there is none.
    """

    label: str
    identity: str
    params: dict[str, str]
    outcome: dict[str, str]
    losses: list[Point]
    accuracies: list[Point]
    store: str = ""
    experiment_id: str = ""

    @property
    def steps(self) -> int:
        """The number of steps trained."""
        return self.losses[-1][0] + 1 if self.losses else 0


def find(names: Sequence[str], uri: str) -> list[Entry]:
    """Returns the runs to compare, each once; a sweep is replaced by its jobs.

    Args:
        names: directory or MLflow run id of each run, or `last`.
        uri: URI of the MLflow store in which to look up runs that have no directory here.

    Raises:
        ConfigError: a run was not found.
        TrackingError: the MLflow store cannot be opened.
    """
    found: dict[str, Entry] = {}
    for name in names:
        here = resume.here(name)
        entries = _of_mlflow(name, uri) if here is None else map(_of_directory, _jobs(here))
        for entry in entries:
            found.setdefault(entry.identity, entry)
    seen = Counter(entry.label for entry in found.values())
    return [
        replace(each, label=f"{each.label} {Path(each.identity).name[:8]}") if seen[each.label] > 1 else each
        for each in found.values()
    ]


def table(entries: Sequence[Entry]) -> Table:
    """Returns a table of the settings in which the runs differ, and of their results.

    Up to MAX_COLUMNS runs have a column each; more have a row each.
    """
    keys = list(dict.fromkeys(key for entry in entries for key in entry.params))
    differ = [key for key in keys if len({entry.params.get(key) for entry in entries}) > 1]
    outcome = list(dict.fromkeys(key for entry in entries for key in entry.outcome))
    lines: list[list[str]] = [["run", *(entry.label for entry in entries)]]
    for key in differ:
        values = formatting.column([_value(entry.params.get(key, "")) for entry in entries])
        lines.append([key, *map(_short, values)])
    lines += [[key, *(entry.outcome.get(key, "") for entry in entries)] for key in outcome]
    if len(entries) > MAX_COLUMNS:
        lines = [list(line) for line in zip(*lines, strict=True)]
    return Table(lines[0], [list(line) for line in lines[1:]])


def curves(entries: Sequence[Entry]) -> dict[str, list[tuple[str, list[Point]]]]:
    """Returns, for each metric, the label and the points of each run, thinned out for a terminal."""
    found: dict[str, list[tuple[str, list[Point]]]] = {}
    for entry in entries:
        steps, means, _ = curve_plots.thinned(entry.losses, entry.steps, most=100)
        found.setdefault(TRAIN_LOSS, []).append((entry.label, list(zip(steps, means, strict=True))))
        found.setdefault(TEST_ACCURACY, []).append((entry.label, entry.accuracies))
    return found


def draw(path: Path, entries: Sequence[Entry]) -> None:
    """Plots the curves of all runs in one figure, as a PNG file."""
    curve_plots.overlay(path, [(each.label, each.losses, each.accuracies, each.steps) for each in entries])


def link(entries: Sequence[Entry]) -> Link | None:
    """Returns a link to the comparison in MLflow's UI; None if there is none, or too many runs for a URL."""
    stores = {each.store for each in entries}
    if len(stores) > 1 or not all(each.experiment_id for each in entries) or len(entries) > MAX_LINKED:
        return None
    runs, experiments = ([getattr(each, key) for each in entries] for key in ("identity", "experiment_id"))
    return ui.comparison(stores.pop(), runs, experiments)


def _jobs(found: RunRecord) -> list[RunRecord]:
    """Returns the jobs of a sweep, in the order of the swept values; for a run, the run itself."""
    if found.kind == "run":
        return [monitor.current(found)]
    return summary.summarize([monitor.current(job) for job in SweepDirectory(found.directory).jobs()]).jobs


def _of_directory(run: RunRecord) -> Entry:
    losses, test_losses, accuracies = (
        [(row.step, row.value) for row in journal.rows(run.directory, key)] for key in KEYS
    )
    outcome = _outcome(run.status, run.seconds, losses, test_losses, accuracies)
    label, identity = _label(run.title), run.run_id or str(run.directory)
    experiment = run.delivery.experiment_id
    return Entry(label, identity, run.params, outcome, losses, accuracies, run.store, experiment)


def _of_mlflow(run_id: str, uri: str) -> list[Entry]:
    """Returns a run, or the jobs of a sweep, from the MLflow store, such as those of another machine."""
    from mlp_tape.mlflow_backend import history  # imports MLflow

    entries = []
    if not may_exist(uri):
        raise _not_found(run_id)
    for run in history.pasts(uri, run_id, KEYS):
        losses, test_losses, accuracies = (run.curves[key] for key in KEYS)
        outcome = _outcome(run.status, run.seconds, losses, test_losses, accuracies)
        label, store_uri = _label(run.name), without_password(uri)
        entries.append(
            Entry(label, run.run_id, run.params, outcome, losses, accuracies, store_uri, run.experiment_id)
        )
    if not entries:
        raise _not_found(run_id)
    return entries


def _not_found(run_id: str) -> ConfigError:
    return ConfigError(
        f"no run {run_id} below {Path.cwd()} or in MLflow", "type its directory, its MLflow run id, or last"
    )


def _outcome(
    status: str, seconds: float, losses: list[Point], test_losses: list[Point], accuracies: list[Point]
) -> dict[str, str]:
    values = {"status": status, "steps": f"{losses[-1][0] + 1:,}" if losses else "0"}
    values["seconds"] = f"{seconds:.1f}"
    for key, points in ((TRAIN_LOSS, losses), (TEST_LOSS, test_losses)):
        values[key] = f"{points[-1][1]:.6f}" if points else ""
    best = max(accuracies, key=lambda point: point[1], default=None)
    values[TEST_ACCURACY] = f"{accuracies[-1][1]:.4f}" if accuracies else ""
    values["best test accuracy"] = f"{best[1]:.4f} at step {best[0]:,}" if best else ""
    return values


def _value(param: str) -> Any:
    """Returns the value of a setting of which MLflow has the text; a text that is no float is returned."""
    with contextlib.suppress(ValueError):
        if repr(float(param)) == param:
            return float(param)
    if param.startswith("[") and param.endswith("]"):
        return [_value(each) for each in param[1:-1].split(", ")]
    return {"None": None, "True": True, "False": False}.get(param, param)


def _label(name: str) -> str:
    return name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH - 3]}..."


def _short(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else f"...{text[3 - MAX_LENGTH :]}"
