"""What the tests of the embedded store share."""

import subprocess
import sys
from pathlib import Path

import mlflow
from mlflow.entities import Run, ViewType

from conftest import ROOT

SMALL = ["dataset=digits", "epochs=1", "model.hidden_sizes=[8]"]


def runs_in(uri: str, experiment: str = "mlp_tape") -> list[Run]:
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], run_view_type=ViewType.ALL))


def mlp_tape(
    directory: Path, environment: dict[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """`python -m mlp_tape`, as a person types it."""
    return subprocess.run(
        [sys.executable, "-m", "mlp_tape", *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )
