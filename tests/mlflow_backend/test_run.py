"""What MLflow holds after a run is what happened, whichever way the run ended."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import mlflow
import mlflow.pyfunc  # which warns of itself while it is imported
import numpy as np
import pytest
import yaml
from mlflow.entities import Run

from conftest import LIMIT, ROOT, sync_unsent, wait_until
from mlp_tape.config.settings import DatasetSettings, ModelSettings, Settings, TrackingSettings, flatten
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import DivergenceError, TrackingError
from mlp_tape.mlflow_backend import delivery, store
from mlp_tape.mlflow_backend.delivery import NICENESS, Delivery
from mlp_tape.mlflow_backend.run import MlflowRun
from mlp_tape.runs.run import execute_run
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import RunRecord

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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was trained to its end."""
    directory = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(directory)
    try:
        execute_run(SMALL, directory, ["lr=0.1", "dataset.path=x", "tracking.uri=http://me:secret@h/"])
    finally:
        os.chdir(before)
    return directory


def test_the_loss_of_every_step_is_there_once(finished: Path) -> None:
    client, run = the_run(finished)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [row.step for row in history] == list(range(STEPS))
    assert run.info.status == "FINISHED"
    stamps = [row.timestamp for row in history]
    assert stamps == sorted(stamps)
    assert run.info.start_time <= stamps[0] <= stamps[-1] <= run.info.end_time


def test_the_test_metrics_stand_at_each_epochs_end(finished: Path) -> None:
    client, run = the_run(finished)
    for key in ("test/loss", "test/accuracy"):
        assert [row.step for row in client.get_metric_history(run.info.run_id, key)] == [41, 83]


def test_the_norms_stand_where_the_losses_are_printed(finished: Path) -> None:
    client, run = the_run(finished)
    steps = [epoch * 42 + step for epoch in (0, 1) for step in (0, 10, 20, 30, 40)]
    for key in ("params/w1/norm", "grads/b2/norm", "updates/w2/ratio"):
        assert [row.step for row in client.get_metric_history(run.info.run_id, key)] == steps
    ratios = client.get_metric_history(run.info.run_id, "updates/b1/ratio")
    assert [row.step for row in ratios] == steps[1:]  # at step 0, b1 is zeros and has no ratio


def test_params_are_the_resolved_settings_and_the_data(finished: Path, mnist_5k: Dataset) -> None:
    _, run = the_run(finished)
    params = run.data.params
    of_the_command = {"resume", "sweep.resume", "sweep.fail_fast"}
    of_other_rules = {
        key for key, value in flatten(SMALL) if value is None and key.startswith(("optimizer.", "schedule."))
    }
    assert set(dict(flatten(SMALL))) - of_the_command - of_other_rules <= set(params)
    assert not of_other_rules & set(params)
    assert params["lr"] == "0.1"
    assert params["layer_sizes"] == "[784, 32, 10]"
    assert params["n_train"] == "4000"
    assert params["data_sha256"] == mnist_5k.sha256


def test_tags_say_how_to_repeat_the_run_and_keep_no_password(finished: Path) -> None:
    _, run = the_run(finished)
    command = "python run.py lr=0.1 dataset.path=x 'tracking.uri=http://***@h/'"
    assert run.data.tags["command"] == command
    if (ROOT / ".git").exists():
        assert len(run.data.tags["mlflow.source.git.commit"]) == 40
        assert run.data.tags["git.dirty"] in ("true", "false")
    assert run.info.run_name == "lr=0.1"


def test_artifacts_are_all_there(finished: Path, tmp_path: Path) -> None:
    client, run = the_run(finished)
    found = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert found == {"config.yaml", "environment.txt", "weights.npz", "plots", "saved_model"}
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


def test_the_logged_model_has_the_logged_accuracy(
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


def test_the_journal_holds_what_mlflow_holds(finished: Path) -> None:
    client, run = the_run(finished)
    rows = [json.loads(line) for line in (finished / "journal.jsonl").read_text().splitlines()]
    for key in {row[0] for row in rows}:
        mine = [row[1:] for row in rows if row[0] == key]
        stored = [
            [row.step, row.value, row.timestamp] for row in client.get_metric_history(run.info.run_id, key)
        ]
        assert mine == stored
    assert int((finished / "journal.sent").read_text()) == (finished / "journal.jsonl").stat().st_size


def test_a_diverging_run_is_failed_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = dataclasses.replace(SMALL, lr=1e20)
    with pytest.raises(DivergenceError, match=r"step \d+ \(epoch 0"):
        execute_run(settings, tmp_path, [])
    client, run = the_run(tmp_path)
    assert run.info.status == "FAILED"
    assert "DivergenceError: the loss is" in run.data.tags["reason"]
    assert "in fit" in (tmp_path / "console.log").read_text()
    values = [row.value for row in client.get_metric_history(run.info.run_id, "train/loss")]
    assert values
    assert max(values) < 1e308  # how MLflow stores infinity


@pytest.mark.concurrency
def test_a_stopped_run_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    append, appended = Journal.append, itertools.count(1)

    def interrupted(journal: Journal, rows: Iterator[Row]) -> None:
        append(journal, rows)
        if next(appended) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute_run(dataclasses.replace(SMALL, epochs=100_000), tmp_path, [])
    sync_unsent(tmp_path, dict(os.environ))
    client, run = the_run(tmp_path)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "SIGINT")
    stored = client.get_metric_history(run.info.run_id, "train/loss")
    assert [row.step for row in stored] == list(range(len(stored)))
    assert stored


def test_rows_are_sent_while_the_run_lasts_and_in_batches(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with Journal(tmp_path) as journal:
        run = MlflowRun(uri, "mlp_tape", RunRecord(tmp_path), journal)
        run.open()
        sizes: list[int] = []
        send = run._client.log_batch

        def counted(run_id: str, metrics: list, **kwargs: object) -> None:
            sizes.append(len(metrics))
            send(run_id, metrics=metrics, **kwargs)

        run._client.log_batch = counted
        journal.append(Row("train/loss", step, 0.5, 1_000 + step) for step in range(2_500))
        run._delivery.start()
        wait_until("three batches", lambda: len(sizes) >= 3)
        assert run._delivery.finish(patience=LIMIT) == ""
    assert sizes == [1000, 1000, 500]
    client, found = the_run(tmp_path)
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 2_500


def test_what_stands_in_the_way_of_a_delivery_is_said_and_passes(tmp_path: Path) -> None:
    """A store that fails, then a journal that is not there: neither ends the thread in silence."""
    arrived: list[Row] = []

    def send(rows: list[Row]) -> None:
        if not (tmp_path / "up").exists():
            raise ConnectionError("the store is down")
        arrived.extend(rows)

    def what_is_said(journal: Journal) -> str:
        sending = Delivery(journal, send)
        sending.start()
        wait_until("an error", lambda: sending._error)
        said = sending.finish(patience=0.5)
        wait_until("the threads' end", lambda: "delivery" not in str(threading.enumerate()))
        return said

    row = Row("train/loss", 0, 0.5, 1)
    with Journal(tmp_path) as journal:
        journal.append([row])
        assert what_is_said(journal) == "the store is down"
        (tmp_path / "up").touch()
        assert Delivery(journal, send).finish(patience=LIMIT) == ""
        assert arrived == [row]
        journal.path.rename(tmp_path / "elsewhere")
        assert "No such file" in what_is_said(journal)


@pytest.mark.long
@pytest.mark.concurrency
def test_a_process_killed_while_it_makes_the_database_leaves_none(
    offline: dict[str, str], tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    opening = (
        "import os, signal, threading; from pathlib import Path; from mlp_tape.mlflow_backend import store\n"
        "def kill():\n"
        f"    here = Path({str(tmp_path)!r})\n"
        "    while not any(each.stat().st_size for each in here.glob('mlflow.db.making-????????')): pass\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=kill, daemon=True).start()\n"
        f"list(store.close_dead({uri!r}, 'mlp_tape'))"
    )
    killed = subprocess.run([sys.executable, "-c", opening], cwd=ROOT, env=offline)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    assert list(tmp_path.glob("mlflow.db.making-*"))
    assert list(store.close_dead(uri, "mlp_tape")) == []
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "mlflow.db.lock"}


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux alone")
def test_training_goes_first_until_somebody_waits(tmp_path: Path) -> None:
    """On a busy machine, a thread that gives way to others would not deliver what is left in time."""
    found: list[int] = []

    def look() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with Journal(tmp_path) as journal:
        sending = Delivery(journal, lambda rows: None, awaited=False)
        sending.start(look)
        wait_until("the first job", lambda: found)
        assert sending.finish(last=[look], patience=LIMIT) == ""
    assert found == [max(NICENESS, usual), usual]


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a clock of its own on Linux alone")
def test_what_computes_is_not_given_up_and_what_hangs_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is for a store that does not answer, and not for a machine that is busy with other things."""
    monkeypatch.setattr(delivery, "WORK", 0.01)  # a hundredth of a core is enough of a busy machine
    patience, end = 1.0, threading.Event()

    def compute() -> None:
        ends = time.thread_time() + 2 * patience
        while time.thread_time() < ends:
            pass

    with Journal(tmp_path) as journal:
        assert Delivery(journal, lambda rows: None).finish(last=[compute], patience=patience) == ""
        hung = Delivery(journal, lambda rows: None)
        assert hung.finish(last=[lambda: bool(end.wait())], patience=patience) == "no answer"
    end.set()


def test_a_position_that_makes_no_sense_costs_a_delivery_anew(tmp_path: Path) -> None:
    row = Row("train/loss", 0, 0.5, 1)
    with Journal(tmp_path) as journal:
        journal.append([row])
    for rubbish in ("rubbish", "", "7", "1000000", "-3"):
        (tmp_path / "journal.sent").write_text(rubbish)
        with Journal(tmp_path) as journal:
            assert journal.unsent(10) == ([row], journal.size)


def test_telemetry_is_off(offline: dict[str, str]) -> None:
    probe = (
        "from mlp_tape.mlflow_backend import run; from mlflow.telemetry import get_telemetry_client\n"
        "print(get_telemetry_client())"
    )
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_artifacts_lie_at_an_absolute_path(finished: Path) -> None:
    _, run = the_run(finished)
    assert run.info.artifact_uri.startswith(str(finished))


def test_a_journal_is_read_up_to_the_last_whole_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append([Row("a", 0, 1.5, 7), Row("a", 1, 0.1, 8)])
        with (tmp_path / "journal.jsonl").open("ab") as file:
            file.write(b'["a", 2, 0.')
        rows, position = journal.unsent(1)
        assert rows == [Row("a", 0, 1.5, 7)]
        journal.acknowledge(position)
        rows, position = journal.unsent(10)
        assert rows == [Row("a", 1, 0.1, 8)]
        journal.acknowledge(position)
        assert journal.unsent(10) == ([], position)


@pytest.mark.parametrize(
    "uri",
    ["foo://bar", "http://127.0.0.1:9", "sqlite:///{}/file/in.db", "sqlite:///{}", "sqlite:///{}/rubbish.db"],
)
def test_a_store_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path, uri: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "rubbish.db").write_text("this is no database")
    uri = uri.format(tmp_path)
    with Journal(tmp_path) as journal, pytest.raises(TrackingError, match="cannot be opened") as caught:
        MlflowRun(uri, "mlp_tape", RunRecord(tmp_path), journal).open()
    assert caught.value.exit_code == 2


def test_an_untracked_run_leaves_its_files_and_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = dataclasses.replace(SMALL, tracking=TrackingSettings(enabled=False))
    accuracy = execute_run(settings, tmp_path, [])
    assert accuracy > 0.3
    assert not (tmp_path / "mlflow.db").exists()
    assert (tmp_path / "weights.npz").exists()
    assert (tmp_path / "plots" / "learning_curve.png").exists()
