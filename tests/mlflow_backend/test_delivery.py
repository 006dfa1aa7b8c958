"""What MLflow has received after a run is what happened, however the run ended."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc  # it emits warnings when it is imported
import numpy as np
import pytest
import yaml
from mlflow.entities import Run

from conftest import ROOT, sync_unsent, wait_until
from mlp_tape.config.settings import (
    OF_MLFLOW,
    DatasetSettings,
    ModelSettings,
    Settings,
    TrackingSettings,
    flatten,
    to_dict,
)
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import DivergenceError, TrackingError
from mlp_tape.mlflow_backend import abandoned, delivery, notifications, server, threads
from mlp_tape.runs.run import execute_run
from mlp_tape.storage import journal, run_record
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import Command, RunRecord

SMALL = Settings(
    lr=0.1,
    batch_size=96,  # 4,000 = 41 * 96 + 64
    epochs=2,
    log_every=10,
    model=ModelSettings(hidden_sizes=[32]),
    dataset=DatasetSettings(name="mnist_5k"),
)
STEPS = 2 * 42


def the_run(directory: Path) -> tuple[mlflow.MlflowClient, Run]:
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mlp_tape")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def console_of(directory: Path) -> str:
    """Returns the console output of the run of a directory that MLflow has."""
    client, run = the_run(directory)
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run.info.run_id, "console.log", folder)).read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run."""
    directory = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(directory)
    try:
        execute_run(
            SMALL, directory, Command([], ["lr=0.1", "dataset.path=x", "tracking.uri=http://me:secret@h/"])
        )
    finally:
        os.chdir(before)
    return directory


def test_loss_of_every_step_is_recorded_once(finished: Path) -> None:
    client, run = the_run(finished)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [row.step for row in history] == list(range(STEPS))
    assert run.info.status == "FINISHED"
    stamps = [row.timestamp for row in history]
    assert stamps == sorted(stamps)
    assert run.info.start_time <= stamps[0] <= stamps[-1] <= run.info.end_time


def test_test_metrics_are_recorded_at_the_end_of_each_epoch(finished: Path) -> None:
    client, run = the_run(finished)
    for key in ("test/loss", "test/accuracy"):
        assert [row.step for row in client.get_metric_history(run.info.run_id, key)] == [41, 83]


def test_norms_are_recorded_at_the_steps_whose_losses_are_printed(finished: Path) -> None:
    client, run = the_run(finished)
    steps = [epoch * 42 + step for epoch in (0, 1) for step in (0, 10, 20, 30, 40)]
    for key in ("params/w1/norm", "grads/b2/norm", "updates/w2/ratio"):
        assert [row.step for row in client.get_metric_history(run.info.run_id, key)] == steps
    ratios = client.get_metric_history(run.info.run_id, "updates/b1/ratio")
    assert [row.step for row in ratios] == steps[1:]  # at step 0, b1 is zeros and has no ratio


def test_params_are_the_resolved_settings_and_the_data(finished: Path, mnist_5k: Dataset) -> None:
    _, run = the_run(finished)
    params = run.data.params
    of_the_command = {"resume", *(key for key, _ in flatten(SMALL) if key.startswith("sweep.")), *OF_MLFLOW}
    of_other_rules = {
        key for key, value in flatten(SMALL) if value is None and key.startswith(("optimizer.", "schedule."))
    }
    assert set(dict(flatten(SMALL))) - of_the_command - of_other_rules <= set(params)
    assert not of_other_rules & set(params)
    assert params["lr"] == "0.1"
    assert params["layer_sizes"] == "[784, 32, 10]"
    assert params["n_train"] == "4000"
    assert params["data_sha256"] == mnist_5k.sha256


def test_tags_contain_the_command_of_the_run_and_no_password(finished: Path) -> None:
    _, run = the_run(finished)
    command = "python run.py lr=0.1 dataset.path=x 'tracking.uri=http://***@h/'"
    assert run.data.tags["command"] == command
    if (ROOT / ".git").exists():
        assert len(run.data.tags["mlflow.source.git.commit"]) == 40
        assert run.data.tags["git.dirty"] in ("true", "false")
    assert run.info.run_name == "lr=0.1"


def test_all_artifacts_are_recorded(finished: Path, tmp_path: Path) -> None:
    client, run = the_run(finished)
    found = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert found - {"uncommitted.diff"} == {
        "checksums.jsonl",
        "classes.csv",
        "config.yaml",
        "console.log",
        "environment.txt",
        "weights.npz",
        "plots",
        "saved_model",
    }
    plots = {item.path for item in client.list_artifacts(run.info.run_id, "plots")}
    names = ("class_accuracy", "confusion_matrix", "first_layer", "histograms", "layers", "learning_curve")
    assert plots == {f"plots/{name}.png" for name in (*names, "worst_mistakes")}
    saved = {item.path for item in client.list_artifacts(run.info.run_id, "saved_model")}
    assert saved == {f"saved_model/{name}" for name in ("fingerprint.pb", "saved_model.pb", "variables")}
    local = Path(client.download_artifacts(run.info.run_id, "config.yaml", str(tmp_path)))
    kept = yaml.safe_load(local.read_text())
    assert (kept["lr"], kept["model"]["hidden_sizes"]) == (0.1, [32])
    local = Path(client.download_artifacts(run.info.run_id, "weights.npz", str(tmp_path)))
    with np.load(local, allow_pickle=False) as weights:
        assert {name: weights[name].shape for name in weights} == {
            "w1": (784, 32),
            "b1": (32,),
            "w2": (32, 10),
            "b2": (10,),
        }
    assert "tensorflow==" in (finished / "environment.txt").read_text()


def test_console_is_recorded_up_to_the_results(finished: Path) -> None:
    _, run = the_run(finished)
    recorded, local = console_of(finished), (finished / "console.log").read_text()
    assert local.startswith(recorded)
    assert recorded.startswith("data   mnist_5k, 4,000 images to train on")
    accuracy = f"test accuracy {run.data.metrics['test/accuracy']:.4f} after 2 epochs"
    assert [line.partition(",")[0] for line in recorded.splitlines()[-2:]] == [
        accuracy,
        f"directory     {finished}",
    ]


def test_logged_model_has_the_logged_accuracy(
    finished: Path, mnist_5k: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished / 'mlflow.db'}")
    client, run = the_run(finished)
    assert "model/MLmodel" in {item.path for item in client.list_artifacts(run.info.run_id, "model")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
        scores = loaded.predict(mnist_5k.x_test)
    assert scores.shape == (1000, 10)
    accuracy = float(np.mean(np.argmax(scores, axis=1) == mnist_5k.y_test))
    assert accuracy == run.data.metrics["test/accuracy"]


def test_journal_and_mlflow_have_the_same_rows(finished: Path) -> None:
    client, run = the_run(finished)
    rows = [json.loads(line) for line in (finished / "journal.jsonl").read_text().splitlines()]
    for key in {row[0] for row in rows}:
        mine = [row[1:] for row in rows if row[0] == key]
        stored = [
            [row.step, row.value, row.timestamp] for row in client.get_metric_history(run.info.run_id, key)
        ]
        assert mine == stored
    assert run_record.read(finished).delivery.position == (finished / "journal.jsonl").stat().st_size


@pytest.mark.long
def test_run_that_diverges_has_status_failed_and_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = dataclasses.replace(SMALL, lr=1e20)
    with pytest.raises(DivergenceError, match=r"step \d+ \(epoch 0"):
        execute_run(settings, tmp_path, Command([], []))
    client, run = the_run(tmp_path)
    assert run.info.status == "FAILED"
    assert "DivergenceError: the loss is" in run.data.tags["reason"]
    local = (tmp_path / "console.log").read_text()
    assert (local.count("Traceback"), local.count("in fit")) == (1, 1)
    assert console_of(tmp_path) == local
    values = [row.value for row in client.get_metric_history(run.info.run_id, "train/loss")]
    assert values
    assert max(values) < 1e308  # how MLflow stores infinity


@pytest.mark.concurrency
def test_run_that_is_stopped_has_status_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    append, appended = Journal.append, itertools.count(1)

    def interrupted(journal: Journal, rows: Iterator[Row]) -> None:
        append(journal, rows)
        if next(appended) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute_run(dataclasses.replace(SMALL, epochs=100_000), tmp_path, Command([], []))
    sync_unsent(tmp_path, dict(os.environ))
    client, run = the_run(tmp_path)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "SIGINT")
    stored = client.get_metric_history(run.info.run_id, "train/loss")
    assert [row.step for row in stored] == list(range(len(stored)))
    assert stored


def saved(directory: Path, **more: Any) -> RunRecord:
    """Saves the record of a run in the directory, whose store is the database next to it."""
    tracking = TrackingSettings(uri=f"sqlite:///{directory / 'mlflow.db'}")
    settings = to_dict(dataclasses.replace(SMALL, tracking=tracking))
    record = RunRecord(directory, settings=settings, uri=str(tracking.uri), token="a token", **more)
    record.mark_started()
    record.save()
    return record


def test_rows_are_sent_in_batches_while_the_run_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = saved(tmp_path)
    log_batch, sizes = mlflow.MlflowClient.log_batch, list[int]()

    def counted(client: mlflow.MlflowClient, run_id: str, metrics: Any = (), **more: Any) -> None:
        sizes.append(len(metrics))
        log_batch(client, run_id, metrics=metrics, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", counted)
    with Journal(tmp_path) as rows:
        rows.append(Row("train/loss", step, 0.5, 1_000 + step) for step in range(2_500))
    steps = list(delivery.deliver(tmp_path, record.uri))
    assert steps == [delivery.OPENED, delivery.BEGUN, *3 * [delivery.ROWS]]
    assert sizes[1:] == [1000, 1000, 500]  # the first request has the params and tags
    assert list(delivery.deliver(tmp_path, record.uri)) == [], "nothing is sent twice"
    client, found = the_run(tmp_path)
    assert found.info.status == "RUNNING"
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 2_500


def test_delivery_that_is_stopped_after_any_step_is_continued(tmp_path: Path) -> None:
    """As by a kill, each attempt ends after one step; at the end, MLflow has everything once."""
    record = saved(tmp_path)
    record.mark_ended("FAILED", "no reason")
    (tmp_path / "config.yaml").write_text("lr: 0.1")
    with Journal(tmp_path) as rows:
        rows.append(Row("train/loss", step, 0.5, 1_000 + step) for step in range(1_500))
    steps = []
    while not run_record.read(tmp_path).sent:
        steps.append(next(delivery.deliver(tmp_path, record.uri)))
        assert len(steps) < 20
    client, found = the_run(tmp_path)
    assert (found.info.status, found.data.tags["reason"]) == ("FAILED", "no reason")
    assert [row.step for row in client.get_metric_history(found.info.run_id, "train/loss")] == list(
        range(1_500)
    )
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["config.yaml"]


def test_loss_of_the_delivery_record_is_harmless(finished: Path, tmp_path: Path) -> None:
    """The run is found by its token, and what is sent again changes nothing."""
    client, before = the_run(finished)
    rows = client.get_metric_history(before.info.run_id, "train/loss")
    for content in ("", "rubbish", "[]", '{"run_id": 7, "unknown": 1}'):
        (finished / "delivery.json").write_text(content)
        delivery.deliver_all(finished, f"sqlite:///{finished / 'mlflow.db'}")
        _, after = the_run(finished)
        assert (after.info.run_id, after.data.params) == (before.info.run_id, before.data.params)
        assert client.get_metric_history(after.info.run_id, "train/loss") == rows
        assert len(client.search_logged_models([after.info.experiment_id])) == 1


class Notifications(list[dict[str, Any]]):
    """The notifications that the MLflow process would send."""

    def send(self, directory: str, event: str, **details: Any) -> None:
        self.append({"event": event} | details)

    def has(self, event: str, **details: Any) -> bool:
        return any(({"event": event} | details).items() <= each.items() for each in self)


@pytest.fixture
def notified(monkeypatch: pytest.MonkeyPatch) -> Notifications:
    found = Notifications()
    monkeypatch.setattr(notifications, "send", found.send)
    monkeypatch.setattr(server, "_followers", {})
    return found


def test_error_of_the_store_is_reported_and_delivery_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notified: Notifications
) -> None:
    record = saved(tmp_path)
    record.mark_ended("FAILED", "no reason")
    log_batch = mlflow.MlflowClient.log_batch

    def failing(*arguments: Any, **more: Any) -> None:
        if not (tmp_path / "up").exists():
            raise ConnectionError("the store is down")
        log_batch(*arguments, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", failing)
    server._deliver(str(tmp_path), record.uri, urgent=True)
    wait_until("the error", lambda: notified.has("failed", what="the store is down", hint=""))
    (tmp_path / "up").touch()
    wait_until("the end", lambda: notified.has("step", step=delivery.ENDED))
    wait_until("the end of the thread", lambda: not server._followers)
    assert the_run(tmp_path)[1].info.status == "FAILED"


def test_delivery_that_is_given_up_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notified: Notifications
) -> None:
    record = saved(tmp_path)
    record.mark_ended("FAILED", "no reason")
    uri = "http://127.0.0.1:9"
    server._deliver(str(tmp_path), uri, urgent=True)
    wait_until("an error", lambda: notified)
    server._give_up(str(tmp_path))
    wait_until("the end of the thread", lambda: not server._followers)
    server._deliver(str(tmp_path), record.uri, urgent=True)
    wait_until("the end", lambda: notified.has("step", step=delivery.ENDED))


def test_missing_journal_is_an_error_if_rows_were_delivered(tmp_path: Path) -> None:
    with Journal(tmp_path) as rows:
        rows.append([Row("train/loss", 0, 0.5, 1)])
        size = rows.size
    rows.path.rename(tmp_path / "elsewhere")
    assert journal.rows_after(tmp_path, 0, 10) == ([], 0)
    with pytest.raises(FileNotFoundError):
        journal.rows_after(tmp_path, size, 10)


@pytest.mark.long
@pytest.mark.concurrency
def test_process_that_is_killed_while_it_creates_the_database_leaves_none(
    offline: dict[str, str], tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    opening = (
        "import os, signal, threading; from pathlib import Path\n"
        "from mlp_tape.mlflow_backend import abandoned\n"
        "def kill():\n"
        f"    here = Path({str(tmp_path)!r})\n"
        "    while not any(each.stat().st_size for each in here.glob('mlflow.db.making-????????')): pass\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=kill, daemon=True).start()\n"
        f"list(abandoned.close_dead({uri!r}, 'mlp_tape'))"
    )
    killed = subprocess.run([sys.executable, "-c", opening], cwd=ROOT, env=offline)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    assert list(tmp_path.glob("mlflow.db.making-*"))
    assert list(abandoned.close_dead(uri, "mlp_tape")) == []
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_delivery_has_low_priority_until_somebody_is_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notified: Notifications
) -> None:
    """On a busy machine, a thread of low priority would not deliver the rest in time."""
    found: list[int] = []

    def deliver(*_: Any) -> Iterator[str]:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        if len(found) > 1:
            yield delivery.ENDED

    saved(tmp_path)
    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    monkeypatch.setattr(delivery, "deliver", deliver)
    server._deliver(str(tmp_path), "sqlite:///unused", urgent=False)
    wait_until("the first attempt", lambda: found)
    server._deliver(str(tmp_path), "sqlite:///unused", urgent=True)
    wait_until("the end of the thread", lambda: not server._followers)
    assert found == [max(threads.NICENESS, usual), usual]


def test_deliveries_that_nobody_is_waiting_for_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notified: Notifications
) -> None:
    """Those of a hundred jobs would delay each other, and the one that the sweep is waiting for."""
    began: list[str] = []
    may_end = threading.Event()

    def deliver(directory: Path, *_: Any) -> Iterator[str]:
        began.append(directory.name)
        if directory.name != "waited for":
            may_end.wait()
        yield delivery.ENDED

    monkeypatch.setattr(delivery, "deliver", deliver)
    monkeypatch.setattr(server, "LONGEST_PAUSE", 1e6)
    for name in ("first", "second", "waited for"):
        (tmp_path / name).mkdir()
        saved(tmp_path / name)
        server._deliver(str(tmp_path / name), "sqlite:///unused", urgent=name == "waited for")
        if name != "second":
            wait_until(name, lambda name=name: name in began)
    assert began == ["first", "waited for"]
    may_end.set()
    wait_until("the end of the threads", lambda: not server._followers)
    assert began == ["first", "waited for", "second"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has clocks of threads")
def test_delivery_that_computes_counts_as_progress_and_one_that_hangs_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notified: Notifications
) -> None:
    """Patience is for a store that does not respond, and not for a busy machine."""
    phase, over = ["compute"], threading.Event()

    def deliver(*_: Any) -> Iterator[str]:
        while phase == ["compute"]:
            pass
        yield "computed"
        over.wait()
        yield delivery.ENDED

    saved(tmp_path)
    monkeypatch.setattr(delivery, "deliver", deliver)
    server._deliver(str(tmp_path), "sqlite:///unused", urgent=True)

    def is_working() -> bool:
        server._report_work()
        return notified.has("working")

    wait_until("the report", is_working)
    phase[0] = "hang"
    wait_until("the step", lambda: notified.has("step", step="computed"))
    notified.clear()
    for _ in range(100):
        server._report_work()
    assert not notified
    over.set()
    wait_until("the end of the thread", lambda: not server._followers)


def test_invalid_position_makes_all_rows_undelivered(tmp_path: Path) -> None:
    row = Row("train/loss", 0, 0.5, 1)
    with Journal(tmp_path) as rows:
        rows.append([row])
        for position in (7, 1_000_000, -3):
            assert journal.rows_after(tmp_path, position, 10) == ([row], rows.size)
            assert journal.count_after(tmp_path, position) == 1


def test_telemetry_is_off(offline: dict[str, str]) -> None:
    probe = (
        "from mlp_tape.mlflow_backend import delivery; from mlflow.telemetry import get_telemetry_client\n"
        "print(get_telemetry_client())"
    )
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_artifact_location_is_an_absolute_path(finished: Path) -> None:
    _, run = the_run(finished)
    assert run.info.artifact_uri.startswith(str(finished))


def test_journal_is_read_up_to_its_last_complete_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as rows:
        rows.append([Row("a", 0, 1.5, 7), Row("a", 1, 0.1, 8)])
        with (tmp_path / "journal.jsonl").open("ab") as file:
            file.write(b'["a", 2, 0.')
    found, position = journal.rows_after(tmp_path, 0, 1)
    assert found == [Row("a", 0, 1.5, 7)]
    found, position = journal.rows_after(tmp_path, position, 10)
    assert found == [Row("a", 1, 0.1, 8)]
    assert journal.rows_after(tmp_path, position, 10) == ([], position)


@pytest.mark.parametrize(
    "uri",
    ["foo://bar", "http://127.0.0.1:9", "sqlite:///{}/file/in.db", "sqlite:///{}", "sqlite:///{}/rubbish.db"],
)
def test_store_that_cannot_be_opened_is_an_immediate_error(tmp_path: Path, uri: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "rubbish.db").write_text("this is no database")
    uri = uri.format(tmp_path)
    saved(tmp_path)
    with pytest.raises(TrackingError, match="cannot be opened") as caught:
        next(delivery.deliver(tmp_path, uri))
    assert caught.value.exit_code == 2


def test_untracked_run_writes_its_files_and_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = dataclasses.replace(SMALL, tracking=TrackingSettings(enabled=False))
    accuracy = execute_run(settings, tmp_path, Command([], []))
    assert accuracy > 0.3
    assert not (tmp_path / "mlflow.db").exists()
    assert (tmp_path / "weights.npz").exists()
    assert (tmp_path / "plots" / "learning_curve.png").exists()
