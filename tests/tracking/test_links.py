"""The links to MLflow's UI lead to a server that shows the run, and say how to start one."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlp_tape.storage.delivery_record import DeliveryRecord
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.tracking import ui

RUN = "0123456789abcdef0123456789abcdef"
VIEW = f"6926a1b2-{RUN}"
NOT_FOUND = f'HTTP/1.1 404 Not Found\r\n\r\n{{"message": "Run with id={RUN} not found", "run_id": "{RUN}"}}'


def record(kind: str = "run", view: str = VIEW) -> RunRecord:
    run = RunRecord(Path("/nowhere"), kind=kind)
    run.delivery = DeliveryRecord(experiment_id="3", run_id=RUN, view=view)
    return run


@contextlib.contextmanager
def listening(answer: str | None) -> Iterator[int]:
    """Yields the port of a program that gives an answer to each connection; None to give none."""
    held = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                held.append(connection)
                if answer is not None:
                    connection.recv(1000)
                    connection.sendall(answer.encode())
                    connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store of the current directory."""
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_link_opens_the_port_on_which_mlflow_ui_would_start(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_PORT", str(port))
    found = ui.link(uri, record())
    assert found.url.startswith(f"http://127.0.0.1:{port}/#/experiments/3/runs?viewStateShareKey={VIEW}&")
    assert found.how_to_open == "mlflow ui, then open the link"
    other = ui.link("sqlite:////elsewhere/my runs.db", record())
    assert other.how_to_open == (
        "mlflow ui --backend-store-uri 'sqlite:////elsewhere/my runs.db', then open the link"
    )


@pytest.mark.parametrize("port", ["", "many", "99999"])
def test_an_impossible_port_in_the_environment_does_not_fail_a_run(
    port: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_PORT", port)
    assert ui.link(uri, record()).url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("answer", [NOT_FOUND, "220 mail.example.org\r\n", "", None])
def test_a_port_of_another_program_is_left_to_it(
    answer: str | None, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as another store's UI, another kind of server, or one that never answers."""
    with listening(answer) as port:
        monkeypatch.setenv("MLFLOW_PORT", str(port))
        found = ui.link(uri, record())
    server = re.match(r"http://127\.0\.0\.1:(\d+)/", found.url)
    assert server
    assert int(server[1]) > port
    assert found.how_to_open == f"mlflow ui --port {server[1]}, then open the link; port {port} is in use"


def test_a_link_to_a_server_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ui.link("https://me:secret@tracking.example.org/mlflow/", record())
    assert found.url.startswith("https://tracking.example.org/mlflow/#/experiments/3/runs?")
    assert found.how_to_open == "open the link; the server is already running"


def test_without_a_view_the_page_of_the_run_is_opened() -> None:
    server, query = "http://server:8080", "?workflowType=machine_learning"
    link = ui.link(server, record(view=""))
    assert link.url == f"{server}/#/experiments/3/runs/{RUN}/model-metrics{query}"
    assert ui.link(server, record("sweep", view="")).url == f"{server}/#/experiments/3/runs/{RUN}{query}"
