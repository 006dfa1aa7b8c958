"""Helpers for the tests of sweeps: MLflow runs, the table of the jobs, and running jobs."""

import csv
from pathlib import Path

import mlflow
from mlflow.entities import Run

from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import RunRecord

STEPS = 11  # per epoch of digits, a tenth of which is held out: 1,293 = 10 * 128 + 13
PARENT = "mlflow.parentRunId"


def runs_in(directory: Path) -> tuple[list[Run], list[Run]]:
    """Returns the MLflow runs of the sweeps, and those of their jobs sorted by name."""
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mlp_tape")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    parents = [run for run in runs if PARENT not in run.data.tags]
    children = [run for run in runs if PARENT in run.data.tags]
    assert {run.data.tags[PARENT] for run in children} <= {run.info.run_id for run in parents}
    return parents, sorted(children, key=lambda run: str(run.info.run_name))


def sweep_directory(directory: Path) -> Path:
    """Returns the directory of the only sweep that was started in `directory`."""
    (found,) = directory.glob("multirun/*/*")
    return found


def read_table(sweep: Path) -> list[dict[str, str]]:
    """Returns the rows of `sweep.csv`."""
    with (sweep / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def loss_steps(directory: Path, run: Run) -> list[int]:
    """Returns the steps for which MLflow has a loss of a run."""
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    return [row.step for row in client.get_metric_history(run.info.run_id, "train/loss")]


def running_job(directory: Path, name: str, beyond: int, known: bool = True) -> RunRecord | None:
    """Returns the record of a running job with a minimum of progress; None if there is none.

    Args:
        directory: directory in which the sweep was started.
        name: name of the job.
        beyond: number of metric rows that the job must have exceeded.
        known: whether the job must have an MLflow run id.
    """
    for path in directory.glob("multirun/*/*/*/run.json"):
        job = run_record.read(path.parent)
        if (job.name, job.status) == (name, "RUNNING") and (job.run_id or not known):
            rows = (path.parent / "journal.jsonl").read_bytes().count(b"\n")
            if rows > beyond:
                return job
    return None
