"""MLflow is in a process of its own: it may die, and it never outlives the program."""

import dataclasses
import json
import os
import re
import signal
from pathlib import Path

import mlflow
import pytest

from conftest import (
    LIMIT,
    SMALL_PIPE,
    Run,
    mlp_tape,
    runs_in,
    start_program,
    sync_unsent,
    wait_for_exit,
    wait_until,
)
from mlp_tape.config.settings import Settings, TrackingSettings, to_dict
from mlp_tape.mlflow_backend import sync
from mlp_tape.storage import run_record
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.tracking.client import ClientRun

ARGUMENTS = ["dataset=mnist_5k", "lr=0.1", "batch_size=96", "report=none"]


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def keeper_of(pid: int) -> int:
    """The process that keeps the runs of another one in MLflow."""
    (found,) = [each for each in children(pid) if b"keeper" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return found


def is_there(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux alone tells who is whose child")
def test_a_run_whose_mlflow_process_is_killed_loses_nothing(offline: dict[str, str], tmp_path: Path) -> None:
    arguments = ["epochs=30", "log_every=2", "report=full"]
    program = start_program(tmp_path, offline, "epoch 2 ", *ARGUMENTS, *arguments, pipe=SMALL_PIPE)
    os.kill(keeper_of(program.pid), signal.SIGKILL)
    shown = wait_for_exit(program)
    assert program.returncode == 0, shown
    assert "Traceback" not in shown
    assert re.search(r"rows are left: the process that talks to MLflow is gone\n", shown)

    done = mlp_tape(tmp_path, offline, "sync")
    assert done.returncode == 0, done.stdout + done.stderr
    (directory,) = tmp_path.glob("outputs/*/*")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = json.loads((directory / "run.json").read_text())["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run_id, "train/loss")
    assert [row.step for row in history] == list(range(30 * 42))
    assert {item.path for item in client.list_artifacts(run_id)} >= {"weights.npz", "plots"}


def test_a_run_that_was_stopped_before_it_wrote_a_file_is_sent(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = dataclasses.replace(Settings(), tracking=TrackingSettings(uri=uri))
    note = RunRecord(tmp_path, settings=to_dict(settings), uri=uri, token="its own", ended=2.0, began=1.0)
    note.status, note.reason, note.data_sha256 = "KILLED", "SIGTERM", "0" * 64
    note.params = {"lr": "0.001", "layer_sizes": "[64, 10]", "n_train": "1437"}
    note.save()
    sync.send(tmp_path, None)
    (run,) = runs_in(uri)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "SIGTERM")
    assert run_record.read(tmp_path).sent
    assert mlflow.MlflowClient(uri).list_artifacts(run.info.run_id) == []


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux alone tells who is whose child")
def test_a_job_is_found_again_whose_process_was_killed_before_it_heard_its_id(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    done = run_py(tmp_path, "-m", "dataset=digits", "epochs=1", "report=none")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("multirun/*/*/0/run.json")
    note = json.loads(file.read_text())
    file.write_text(json.dumps(note | {"run_id": "", "sent": False}))  # as it is for a moment
    (file.parent / "journal.sent").unlink()
    done = mlp_tape(tmp_path, offline, "sync", str(file.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(file.read_text())["run_id"] == note["run_id"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mlp_tape")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == len(list(tmp_path.rglob("run.json")))
    assert len(client.get_metric_history(note["run_id"], "train/loss")) == 12


@pytest.mark.long
@pytest.mark.concurrency
def test_the_mlflow_process_ends_with_a_program_that_is_killed(
    offline: dict[str, str], tmp_path: Path
) -> None:
    program = start_program(tmp_path, offline, "epoch 2 ", *ARGUMENTS, "epochs=100000")
    keeper = keeper_of(program.pid)
    assert is_there(keeper)
    program.kill()
    program.wait()
    wait_until("the end of the MLflow process", lambda: not is_there(keeper))


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_of_a_job_closes_its_run(
    offline: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """A terminal's Ctrl-C and a cluster's SIGTERM go to the MLflow process, too."""
    program = start_program(tmp_path, offline, "epoch 2 ", *ARGUMENTS, "epochs=100000")
    for pid in (*children(program.pid), program.pid):
        os.kill(pid, number)
    shown = wait_for_exit(program)
    assert program.returncode == 128 + number, shown
    sync_unsent(tmp_path, offline)
    (directory,) = tmp_path.glob("outputs/*/*")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(json.loads((directory / "run.json").read_text())["run_id"])
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", number.name)


@pytest.mark.long
def test_training_has_no_mlflow_in_its_process(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "+experiment=smoke", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\| +mlflow$", done.stderr, re.M)
    assert re.search(r"\| +mlp_tape.courier$", done.stderr, re.M)


@pytest.mark.long
def test_what_is_asked_of_many_runs_is_done_in_order(tmp_path: Path) -> None:
    """As in a sweep: each job's run is begun and closed right after it was made known."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for number in range(40):
        directory = tmp_path / str(number)
        directory.mkdir()
        for name in ("config.yaml", "environment.txt"):
            (directory / name).touch()
        note = RunRecord(directory, parent="the sweep", status="FAILED", reason="no reason", ended=1.0)
        with Journal(directory) as journal:
            run = ClientRun(uri, "many", note, journal)
            run.begin()
            assert run.close(LIMIT, LIMIT, lambda rows: None) == ""
        assert note.run_id and run.link
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("many")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 40
