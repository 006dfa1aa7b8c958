"""A store that cannot be opened: the message says why, and the command in it cures that."""

import shlex
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config

from conftest import ended_run, sample
from mlp_tape.errors import TrackingError
from mlp_tape.mlflow_backend import delivery, store
from mlp_tape.tracking.uri import check_reachable

HTML = b"<!doctype html><html><body>Please sign in to continue</body></html>"


class Handler(BaseHTTPRequestHandler):
    """Answers every request as its server says."""

    server: "OtherServer"

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        for key, value in self.server.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


class OtherServer(HTTPServer):
    """A server on the loopback interface that is not MLflow."""

    status, body = 200, HTML
    headers = {"Content-Type": "text/html"}  # noqa: RUF012, set for each test

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def other() -> Iterator[OtherServer]:
    server = OtherServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def refusal(uri: str) -> TrackingError:
    with pytest.raises(TrackingError) as refused:
        store.ask(uri, lambda client: store.experiment_id(client, "mlp_tape"))
    return refused.value


def type_command(hint: str, directory: Path) -> None:
    """Types the command of MLflow in a hint, up to its alternative."""
    command = hint.removeprefix("make a copy of it and type ").partition(", or type")[0]
    command = command.replace("mlflow ", f"{shlex.quote(sys.executable)} -m mlflow ", 1)
    done = subprocess.run(command, shell=True, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_web_page_instead_of_an_answer_is_said_to_be_one(other: OtherServer) -> None:
    error = refusal(other.url)
    assert "the answer is a web page" in error.what
    assert "sign in" not in error.what
    assert f"port {other.server_port} belongs to another program" in error.hint


def test_redirection_is_said_with_its_target(other: OtherServer) -> None:
    other.status, other.headers = 302, {"Location": "https://login.example.org/"}
    error = refusal(other.url)
    assert "it redirects to https://login.example.org/" in error.what


@pytest.mark.parametrize(("status", "body"), [(200, b"3.17.2"), (404, b"{}"), (401, b"no"), (503, b"wait")])
def test_any_other_answer_is_left_to_mlflow(other: OtherServer, status: int, body: bytes) -> None:
    other.status, other.body = status, body
    check_reachable(other.url)


@pytest.mark.parametrize("name", sample(["mlflow.db", "another.db"], "mlflow.db"))
def test_deleted_experiment_is_restored_by_the_command_in_the_message(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path / name}"
    found = store.ask(uri, lambda client: store.experiment_id(client, "mlp_tape"))
    mlflow.MlflowClient(uri).delete_experiment(found)
    error = refusal(uri)
    assert error.what == "the experiment mlp_tape was deleted"
    type_command(error.hint, tmp_path)
    assert store.ask(uri, lambda client: store.experiment_id(client, "mlp_tape")) == found


@pytest.mark.long
def test_deleted_run_is_restored_by_the_command_in_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = ended_run(tmp_path)
    delivery.deliver_all(tmp_path, record.uri)
    client = mlflow.MlflowClient(record.uri)
    client.delete_run(record.run_id or delivery.run_record.read(tmp_path).run_id)
    record.mark_started()
    record.mark_ended("KILLED", "again")
    with pytest.raises(TrackingError, match="was deleted") as refused:
        delivery.deliver_all(tmp_path, record.uri)
    type_command(refused.value.hint, tmp_path)
    delivery.deliver_all(tmp_path, record.uri)


def test_database_of_an_earlier_version_is_said_to_be_one(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'old.db'}"
    with store.without_pool():
        mlflow.MlflowClient(f"sqlite:///{tmp_path / 'new.db'}").search_experiments()
    (tmp_path / "new.db").rename(tmp_path / "old.db")
    (newest,) = (directory := ScriptDirectory.from_config(_get_alembic_config(uri))).get_heads()
    before = directory.get_revision(newest).down_revision
    with sqlite3.connect(tmp_path / "old.db") as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (before,))
    error = refusal(uri)
    assert error.what.endswith("its tables are those of an earlier version of MLflow")
    assert f"mlflow db upgrade {uri}" in error.hint
