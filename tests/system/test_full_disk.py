"""A full or read-only disk: a clear error message, and no loss of data."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from conftest import Run
from mlp_tape.storage import run_record

ARGUMENTS = ["dataset=digits", "lr=0.1", "epochs=60", "model.hidden_sizes=[64]", "log_every=1", "report=none"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB in memory; skips the test if it cannot be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small file system to fill")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.long
def test_run_on_a_full_disk_reports_it_and_can_be_resumed(run_py: Run, disk: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = run_py(disk, *ARGUMENTS, MLFLOW_TRACKING_URI=uri)
    (directory,) = disk.glob("outputs/*/*")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()[-2:]
    assert first == f"error: {directory}: No space left on device"
    assert "Traceback" not in done.stderr
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mlp_tape").experiment_id])
    assert second.endswith(f"python run.py resume={run.info.run_id}")
    assert (run.info.status, "No space left" in run.data.tags["reason"]) == ("FAILED", True)

    subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
    resumed = run_py(disk, "resume=last", MLFLOW_TRACKING_URI=uri)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed " in resumed.stdout
    run = client.get_run(run.info.run_id)
    assert run.info.status == "FINISHED"
    assert "reason" not in run.data.tags
    for key in ("train/loss", "grads/w1/norm"):
        history = client.get_metric_history(run.info.run_id, key)
        assert [row.step for row in history] == list(range(60 * 12))

    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    rejected = run_py(disk, "resume=last", "epochs=61", MLFLOW_TRACKING_URI=uri)
    assert rejected.returncode == 2
    assert rejected.stderr.startswith(f"error: {directory} cannot be written to: Read-only file system")
    rejected = run_py(disk, "dataset=digits", MLFLOW_TRACKING_URI=uri)
    assert (rejected.returncode, len(rejected.stderr.splitlines())) == (2, 2)
    assert run_record.read(directory).sent
