"""What the tests of sweeps need: a sweep's runs and table, and its jobs at work."""

import csv
import json
from pathlib import Path

import mlflow
from mlflow.entities import Run

from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import RunRecord

STEPS = 12  # of an epoch of digits: 1,437 = 11 * 128 + 29
PARENT = "mlflow.parentRunId"


def runs_in(directory: Path) -> tuple[list[Run], list[Run]]:
    """The sweeps' own runs and their jobs', as MLflow has them."""
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mlp_tape")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    parents = [run for run in runs if PARENT not in run.data.tags]
    children = [run for run in runs if PARENT in run.data.tags]
    assert {run.data.tags[PARENT] for run in children} <= {run.info.run_id for run in parents}
    return parents, sorted(children, key=lambda run: str(run.info.run_name))


def the_sweep(directory: Path) -> Path:
    (found,) = directory.glob("multirun/*/*")
    return found


def table_of(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def losses(directory: Path, run: Run) -> list[int]:
    """The steps whose losses MLflow has of a run."""
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    return [row.step for row in client.get_metric_history(run.info.run_id, "train/loss")]


def at_work(directory: Path, name: str, beyond: int, known: bool = True) -> RunRecord | None:
    """The record of a job that is at work and has written more than so many rows, if there is one.

    Args:
        directory: in which the sweep was started.
        name: the job's.
        beyond: how many rows.
        known: whether it has to be one that MLflow knows by now.
    """
    for path in directory.glob("multirun/*/*/*/run.json"):
        job = json.loads(path.read_text())
        if (job["name"], job["status"]) == (name, "RUNNING") and (job["run_id"] or not known):
            rows = (path.parent / "journal.jsonl").read_bytes().count(b"\n")
            if rows > beyond:
                return run_record.read(path.parent)
    return None
