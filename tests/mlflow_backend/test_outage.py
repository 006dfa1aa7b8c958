"""An outage of the tracking server loses no row, and never prevents a run from ending."""

import contextlib
import http.server
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import mlflow
import pytest

from conftest import (
    LIMIT,
    SMALL_PIPE,
    Run,
    Server,
    mlp_tape,
    read_until,
    sample,
    start_program,
    wait_for_exit,
)
from mlp_tape.storage import run_record
from mlp_tape.storage.journal import Journal

ARGUMENTS = ["dataset=mnist_5k", "lr=0.1", "batch_size=96", "log_every=10"]
STEPS_PER_EPOCH = 42
LATER = "epoch 80 "  # not printed yet when "epoch 5 " is read through a small pipe, as an epoch has 220 bytes
FOR_EVER = {  # MLflow would try for so long that a program that waited for it would not end within LIMIT
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "100000",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "9",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "100",
}


def check_all_is_there(server: Server, epochs: int) -> None:
    """Checks that the server has each row of the only run once, as in the journal."""
    client = mlflow.MlflowClient(server.url)
    experiment = client.get_experiment_by_name("mlp_tape")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    directory = Path(run.data.tags["directory"])
    rows = [json.loads(line) for line in (directory / "journal.jsonl").read_text().splitlines()]
    for key in {row[0] for row in rows}:
        history = client.get_metric_history(run.info.run_id, key)
        assert [[key, row.step, row.value, row.timestamp] for row in history] == [
            row for row in rows if row[0] == key
        ]
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [row.step for row in history] == list(range(epochs * STEPS_PER_EPOCH))
    assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {"weights.npz", "plots"}
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert (model.source_run_id, str(model.status)) == (run.info.run_id, "READY")
    note = run_record.read(directory)
    assert history[-1].timestamp <= run.info.end_time == int(1000 * note.ended), "not when that was sent"


def connections(listening: socket.socket) -> int:
    """Returns the number of connections to a socket that were not accepted."""
    listening.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


@pytest.mark.long
@pytest.mark.concurrency
def test_server_receives_everything_after_a_temporary_outage(
    server: Server, offline: dict[str, str], tmp_path: Path
) -> None:
    arguments = [*ARGUMENTS, "epochs=150", f"tracking.uri={server.url}", f"tracking.patience={LIMIT}"]
    program = start_program(tmp_path, offline, "epoch 5 ", *arguments, pipe=SMALL_PIPE)
    try:
        server.stop()
        read_until(program, LATER)
        server.start()
        shown = wait_for_exit(program)
    finally:
        program.kill()
    assert program.returncode == 0, shown
    assert "WARNING" not in shown
    check_all_is_there(server, epochs=150)


@pytest.mark.long
@pytest.mark.concurrency
def test_rows_of_a_lasting_outage_are_sent_by_sync(
    server: Server, offline: dict[str, str], tmp_path: Path
) -> None:
    arguments = [*ARGUMENTS, "epochs=100", f"tracking.uri={server.url}", "tracking.patience=3"]
    program = start_program(tmp_path, offline, "epoch 5 ", *arguments, pipe=SMALL_PIPE)
    (directory,) = tmp_path.glob("outputs/*/*")
    try:
        server.stop()
        shown = wait_for_exit(program)
    finally:
        program.kill()
    over = time.time()
    assert program.returncode == 0, shown
    assert re.search(r"sending to MLflow: [\d,]+ rows remaining", shown)
    assert re.search(r"WARNING  MLflow is missing part of this run, [\d,]+ rows are left", shown)
    assert f"python -m mlp_tape sync {directory}" in shown
    assert "Traceback" not in shown

    done = mlp_tape(tmp_path, offline, "sync")
    assert (done.returncode, done.stderr) == (1, "")
    assert f"{directory}: MLflow at {server.url} cannot be opened: no answer" in done.stdout
    server.start()
    done = mlp_tape(tmp_path, offline, "sync")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[\d,]+ rows and the status FINISHED sent$", done.stdout.strip())
    check_all_is_there(server, epochs=100)
    assert run_record.read(directory).ended <= over
    done = mlp_tape(tmp_path, offline, "sync", str(directory))
    assert (done.returncode, done.stdout) == (0, "1 run, nothing to send\n")


@pytest.mark.long
@pytest.mark.concurrency
def test_server_that_hangs_delays_neither_the_start_nor_the_end(
    run_py: Run, server: Server, offline: dict[str, str], tmp_path: Path
) -> None:
    """A stopped process accepts connections and does not respond."""
    arguments = [*ARGUMENTS, "epochs=1000000", f"tracking.uri={server.url}", "tracking.patience=1000000"]
    program = start_program(tmp_path, offline | FOR_EVER, "epoch 5 ", *arguments, pipe=SMALL_PIPE)
    assert server._process is not None
    (directory,) = tmp_path.glob("outputs/*/*")
    try:
        os.killpg(server._process.pid, signal.SIGSTOP)
        read_until(program, LATER)
        program.send_signal(signal.SIGINT)
        shown = wait_for_exit(program)
        assert program.returncode == 130, shown
        assert f"python -m mlp_tape sync {directory}" in shown
        assert run_py(tmp_path, "dataset=digits", f"tracking.uri={server.url}", **FOR_EVER).returncode == 2
    finally:
        program.kill()
        os.killpg(server._process.pid, signal.SIGCONT)
    done = mlp_tape(tmp_path, offline, "sync", str(directory))
    assert done.returncode == 0, done.stdout + done.stderr
    client = mlflow.MlflowClient(server.url)
    run = client.get_run(run_record.read(directory).run_id)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "SIGINT")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sum(1 for _ in Journal(directory).read("train/loss")) == len(history) > 80 * STEPS_PER_EPOCH


@pytest.mark.concurrency
@pytest.mark.parametrize("kind", sample(["refused", "silent"], "silent"))
def test_server_that_cannot_be_reached_at_the_start_is_an_immediate_error(
    run_py: Run, tmp_path: Path, kind: str
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == "silent":  # accepts connections and does not respond
            silent.listen(100)
        port = silent.getsockname()[1]
        done = run_py(tmp_path, "dataset=digits", f"tracking.uri=http://127.0.0.1:{port}", **FOR_EVER)
        if kind == "silent":
            assert connections(silent) == 1, "nothing is tried again"
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(f"error: MLflow at http://127.0.0.1:{port} cannot be opened: no answer")
    assert f"mlflow server --port {port}" in second
    assert not list(tmp_path.glob("outputs/*/*/run.json"))


class Guarded(http.server.BaseHTTPRequestHandler):
    """Requires a password, like a proxy in front of MLflow."""

    def answer(self) -> None:
        self.send_response(401)
        self.end_headers()

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.long
def test_server_that_requires_a_password_is_an_error_that_says_how_to_set_it(
    run_py: Run, tmp_path: Path
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as guarded:
        threading.Thread(target=guarded.serve_forever, daemon=True).start()
        done = run_py(tmp_path, "dataset=digits", f"tracking.uri=http://127.0.0.1:{guarded.server_port}")
        guarded.shutdown()
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert "error code 401" in first
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in second
    assert not list(tmp_path.iterdir())


def test_database_server_that_does_not_exist_is_an_immediate_error(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "dataset=digits", "tracking.uri=postgresql://me:secret@127.0.0.1:9/mlflow")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith(
        "error: MLflow at postgresql://***@127.0.0.1:9/mlflow cannot be opened: no answer"
    )
    assert "secret" not in done.stderr
