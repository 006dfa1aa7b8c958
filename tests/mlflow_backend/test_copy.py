"""Runs and sweeps are copied to another store, completely, and however often it is done, once."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run as MlflowRun

from conftest import Run, Server, ended_run, mlp_tape, runs_in
from mlp_tape.mlflow_backend import delivery, sync
from mlp_tape.storage import run_record

SMALL = ["dataset=digits", "epochs=1", "model.hidden_sizes=[8]"]


def content(uri: str, run: MlflowRun) -> dict[str, Any]:
    """Returns what a store has of a run, apart from ids and paths in it."""
    client, run_id = mlflow.MlflowClient(uri), run.info.run_id
    histories = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "params": run.data.params,
        "rows": {key: [(m.step, m.value, m.timestamp) for m in rows] for key, rows in histories.items()},
        "artifacts": sorted(each.path for each in client.list_artifacts(run_id)),
        "data": [each.dataset.digest for each in run.inputs.dataset_inputs],
        "command": run.data.tags["command"],
    }


def test_run_is_copied_once_and_its_own_store_still_has_it(tmp_path: Path) -> None:
    record = ended_run(tmp_path)
    delivery.deliver_all(tmp_path, record.uri)
    other, own = f"sqlite:///{tmp_path / 'other.db'}", run_record.read(tmp_path).delivery
    told: list[str] = []
    for _ in range(2):
        assert sync.copy([tmp_path], other, told.append)
        (copied,) = runs_in(other)
        assert copied.info.run_id != own.run_id
        assert content(other, copied)["rows"] == content(record.uri, runs_in(record.uri)[0])["rows"]
    assert run_record.read(tmp_path).delivery == own
    (lost,) = tmp_path.glob("delivery-*.json")
    lost.unlink()
    assert sync.copy([tmp_path], other, told.append)
    assert len(runs_in(other)) == 1, "the run is found by its token"
    assert sync.copy([tmp_path], record.uri, told.append)
    assert told[-1].endswith("it is recorded there")
    assert sync.sync([tmp_path], told.append)
    assert told[-1] == "1 run, nothing to send"


def test_run_that_was_killed_is_copied_as_killed(tmp_path: Path) -> None:
    record = ended_run(tmp_path)
    record.mark_started()
    record.save()
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert sync.copy([tmp_path], other, print)
    assert [run.info.status for run in runs_in(other)] == ["KILLED"]


@pytest.mark.long
def test_sweep_is_copied_from_a_database_to_a_server(
    run_py: Run, offline: dict[str, str], server: Server, tmp_path: Path
) -> None:
    swept = ["lr=0.1,0.2", "report=full", "tracking.register_as=copied"]
    assert run_py(tmp_path, "-m", *SMALL, *swept).returncode == 0
    own = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for _ in range(2):
        done = mlp_tape(tmp_path, offline, "sync", "--uri", server.url)
        assert done.returncode == 0, done.stdout + done.stderr
    names = sorted(run.info.run_name for run in runs_in(own))
    there = {run.info.run_name: run for run in runs_in(server.url)}
    assert sorted(there) == names
    assert len(runs_in(server.url)) == 3
    for run in runs_in(own):
        assert content(server.url, there[run.info.run_name]) == content(own, run)
    sweep = there["sweep lr=0.1,0.2"]
    jobs = [there["lr=0.1"], there["lr=0.2"]]
    assert {job.data.tags["mlflow.parentRunId"] for job in jobs} == {sweep.info.run_id}
    assert sweep.data.tags["best.run_id"] in {job.info.run_id for job in jobs}
    client = mlflow.MlflowClient(server.url)
    models = {each.source_run_id: each for each in client.search_logged_models([sweep.info.experiment_id])}
    for job in jobs:
        assert f"runs:/{job.info.run_id}/model" in job.data.tags["mlflow.note.content"]
        location = models[job.info.run_id].artifact_location
        files = mlflow.artifacts.download_artifacts(location, tracking_uri=server.url)
        model = mlflow.pyfunc.load_model(files)
        (weights,) = (path for path in tmp_path.glob("multirun/*/*/*/weights.npz") if same(path, job))
        with np.load(weights) as archive:
            loaded = model.unwrap_python_model().params
            assert all(np.array_equal(loaded[name], archive[name]) for name in archive)
    assert sorted(int(each.version) for each in client.search_model_versions("name = 'copied'")) == [1, 2]


def same(path: Path, job: MlflowRun) -> bool:
    return run_record.read(path.parent).name == job.info.run_name
