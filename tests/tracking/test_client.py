"""The MLflow process may be killed or hang, and it never outlives the program."""

import dataclasses
import math
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from conftest import (
    LIMIT,
    SMALL_PIPE,
    Run,
    ended_run,
    mlp_tape,
    runs_in,
    start_program,
    sync_unsent,
    wait_for_exit,
    wait_until,
)
from mlp_tape.config.settings import Settings, TrackingSettings, to_dict
from mlp_tape.errors import TrackingError
from mlp_tape.mlflow_backend import sync
from mlp_tape.storage import run_record
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.tracking import client, client_process
from mlp_tape.tracking.client import ClientRun

ARGUMENTS = ["dataset=mnist_5k", "lr=0.1", "batch_size=96", "report=none"]


def children(pid: int) -> list[int]:
    """Returns the child processes of a process."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def mlflow_process_of(pid: int) -> int:
    """Returns the MLflow process of a process."""
    name = b"mlflow_backend"
    (found,) = [each for each in children(pid) if name in Path(f"/proc/{each}/cmdline").read_bytes()]
    return found


def is_there(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


on_linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists child processes")


def check_all_rows_are_recorded(directory: Path, uri: str, steps: int) -> None:
    client, record = mlflow.MlflowClient(uri), run_record.read(directory)
    run = client.get_run(record.run_id)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(record.run_id, "train/loss")
    assert [row.step for row in history] == list(range(steps))


@pytest.mark.long
@pytest.mark.concurrency
@on_linux
def test_run_whose_mlflow_process_is_killed_starts_another_one(
    offline: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["epochs=30", "log_every=2", "report=full", f"tracking.patience={LIMIT}"]
    program = start_program(tmp_path, offline, "epoch 2 ", *ARGUMENTS, *arguments, pipe=SMALL_PIPE)
    os.kill(mlflow_process_of(program.pid), signal.SIGKILL)
    shown = wait_for_exit(program)
    assert program.returncode == 0, shown
    assert "Traceback" not in shown
    assert "WARNING" not in shown
    (directory,) = tmp_path.glob("outputs/*/*")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    check_all_rows_are_recorded(directory, uri, 30 * 42)
    files = {item.path for item in mlflow.MlflowClient(uri).list_artifacts(run_record.read(directory).run_id)}
    assert files >= {"weights.npz", "plots"}


@pytest.mark.long
@pytest.mark.concurrency
@on_linux
def test_run_whose_mlflow_process_hangs_ends_after_the_patience(
    offline: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["epochs=30", "tracking.patience=3"]
    program = start_program(tmp_path, offline, "epoch 2 ", *ARGUMENTS, *arguments, pipe=SMALL_PIPE)
    process = mlflow_process_of(program.pid)
    os.kill(process, signal.SIGSTOP)
    shown = wait_for_exit(program)
    assert program.returncode == 0, shown
    assert re.search(r"[\d,]+ rows are left: no answer\n", shown)
    wait_until("the end of the process", lambda: not is_there(process))
    (directory,) = tmp_path.glob("outputs/*/*")
    assert f"python -m mlp_tape sync {directory}" in shown
    done = mlp_tape(tmp_path, offline, "sync")
    assert done.returncode == 0, done.stdout + done.stderr
    check_all_rows_are_recorded(directory, f"sqlite:///{tmp_path}/mlflow.db", 30 * 42)


class Silent:
    """An MLflow process that receives messages and does nothing."""

    exists, is_ready, last_sign, last_line = True, True, 0.0, ": its last line"
    epitaph = "the process is gone"

    def __init__(self) -> None:
        self.messages: list[str] = []

    def listen(self, directory: Path, listener: Any) -> None:
        self.notify = listener

    def forget(self, directory: Path) -> None:
        pass

    def send(self, do: str, directory: Path, **details: Any) -> None:
        self.messages.append(do)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Silent:
    found = Silent()
    monkeypatch.setattr(client_process, "running", lambda: found)
    return found


def test_client_gives_up_after_the_patience_unless_there_is_progress(
    tmp_path: Path, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(client.time, "monotonic", lambda: now[0])
    record = RunRecord(tmp_path, uri="sqlite:///unused", status="FAILED", ended=1.0)
    with Journal(tmp_path) as rows:
        rows.append([Row("train/loss", 0, 0.5, 1)])
    run, left = ClientRun(record.uri, record), list[int]()

    def show(count: int) -> None:
        left.append(count)
        now[0] += 20  # seconds
        if len(left) <= 5:
            silent.notify({"event": "working"})
        if len(left) == 6:
            silent.notify({"event": "failed", "what": "the store is down", "hint": "start it"})
            silent.notify({"event": "working"})  # on an attempt that may fail in the same way

    assert run.close(30.0, math.inf, show) == "the store is down"
    assert left == 7 * [1]
    assert silent.messages == ["deliver", "give up"]


def test_process_that_never_responds_is_reported_with_its_last_line(
    tmp_path: Path, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "START", 1.0)
    run = ClientRun("sqlite:///unused", RunRecord(tmp_path, uri="sqlite:///unused"))
    with pytest.raises(TrackingError, match="does not respond: its last line"):
        run.open(print, print)


def test_sign_of_life_may_be_old_after_a_pause(tmp_path: Path, silent: Silent) -> None:
    """After Ctrl-Z and `fg`, or on a machine that was paused, both processes go on."""
    silent.last_sign = time.monotonic() - 10 * client.START
    run, said = ClientRun("sqlite:///unused", RunRecord(tmp_path, uri="sqlite:///unused")), list[str]()

    def answer() -> None:
        silent.notify({"event": "prepared", "lines": ["as the store says"]})
        wait_until("the request to deliver", lambda: silent.messages)
        silent.notify({"event": "step"})

    answering = threading.Timer(3 * client.LOOK, answer)
    answering.start()
    run.open(said.append, print)
    answering.join()
    assert said == ["as the store says"]


def test_run_that_was_stopped_before_it_wrote_a_file_is_delivered(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    settings = dataclasses.replace(Settings(), tracking=TrackingSettings(uri=uri))
    record = RunRecord(tmp_path, settings=to_dict(settings), uri=uri, token="its own", began=1.0)
    record.data_sha256 = "0" * 64
    record.params = {"lr": "0.001", "layer_sizes": "[64, 10]", "n_train": "1437"}
    record.mark_ended("KILLED", "SIGTERM")
    assert sync.sync([tmp_path], print)
    (run,) = runs_in(uri)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "SIGTERM")
    assert run_record.read(tmp_path).sent
    assert mlflow.MlflowClient(uri).list_artifacts(run.info.run_id) == []


@pytest.mark.long
@pytest.mark.concurrency
def test_job_whose_process_was_killed_before_it_recorded_the_run_id_is_found_again(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    done = run_py(tmp_path, "-m", "dataset=digits", "epochs=1", "report=none")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("multirun/*/*/0/delivery.json")
    run_id = run_record.read(file.parent).run_id
    file.unlink()  # as it is for a moment
    done = mlp_tape(tmp_path, offline, "sync", str(file.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_record.read(file.parent).run_id == run_id
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert len(runs_in(uri)) == len(list(tmp_path.rglob("run.json")))
    assert len(mlflow.MlflowClient(uri).get_metric_history(run_id, "train/loss")) == 12


@pytest.mark.long
@pytest.mark.concurrency
def test_mlflow_process_ends_when_its_program_is_killed(offline: dict[str, str], tmp_path: Path) -> None:
    program = start_program(tmp_path, offline, "epoch 2 ", *ARGUMENTS, "epochs=100000")
    process = mlflow_process_of(program.pid)
    assert is_there(process)
    program.kill()
    program.wait()
    wait_until("the end of the MLflow process", lambda: not is_there(process))


@pytest.mark.long
@pytest.mark.concurrency
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_all_processes_of_a_run_closes_it(
    offline: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C in a terminal and SIGTERM by a cluster are sent to the MLflow process too."""
    program = start_program(tmp_path, offline, "epoch 2 ", *ARGUMENTS, "epochs=100000")
    for pid in (*children(program.pid), program.pid):
        os.kill(pid, number)
    shown = wait_for_exit(program)
    assert program.returncode == 128 + number, shown
    sync_unsent(tmp_path, offline)
    (directory,) = tmp_path.glob("outputs/*/*")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(run_record.read(directory).run_id)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", number.name)


@pytest.mark.long
def test_training_process_does_not_import_mlflow(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "+experiment=smoke", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\| +mlflow$", done.stderr, re.M)
    assert re.search(r"\| +mlp_tape.tracking.client$", done.stderr, re.M)


@pytest.mark.long
def test_many_runs_are_delivered_by_one_process(tmp_path: Path) -> None:
    """As in a sweep: the run of each job is opened and closed in quick succession."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    settings = to_dict(dataclasses.replace(Settings(), tracking=TrackingSettings(uri=uri)))
    for number in range(12):
        directory = tmp_path / str(number)
        directory.mkdir()
        record = RunRecord(directory, parent="the sweep", settings=settings, token=f"token {number}")
        record.mark_started()
        with Journal(directory) as rows:
            run = ClientRun(uri, record, rows)
            record.save()
            run.open(print, print)
            record.mark_ended("FAILED", "no reason")
            assert run.close(LIMIT, LIMIT, lambda left: None) == ""
        assert record.run_id
        assert run.link
    assert client_process.running()._listeners == {}, "memory must not grow with the runs"
    assert {each.info.status for each in runs_in(uri)} == {"FAILED"}
    assert len(runs_in(uri)) == 12


@pytest.mark.long
def test_fault_in_the_listener_of_one_run_leaves_the_others_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    events = list[str]()

    def faulty(notification: dict[str, Any]) -> None:
        raise ValueError("a fault")

    records = []
    for name in ("faulty", "sound"):
        (tmp_path / name).mkdir()
        records.append(ended_run(tmp_path / name))
    process = client_process.MlflowProcess()
    try:
        process.listen(records[0].directory, faulty)
        process.listen(records[1].directory, lambda notification: events.append(notification["event"]))
        for record in records:
            process.send("deliver", record.directory, uri=record.uri, urgent=True)
            wait_until("the delivery", lambda: run_record.read(record.directory).sent)  # noqa: B023
        wait_until("the notifications", lambda: "step" in events)
    finally:
        process.end()
    assert "ValueError: a fault" in capsys.readouterr().err
