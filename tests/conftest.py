"""What several tests need: the data, the program as a subprocess, and MLflow's answers."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # of the tests' own calls

from mlp_tape import data
from mlp_tape.data import Dataset

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]
Program = subprocess.Popen[str]


@pytest.fixture(scope="session")
def mnist_npz() -> str:
    """The path of full MNIST, or a skip."""
    path = os.environ.get("MLP_TAPE_MNIST", "")
    if not Path(path).is_file():
        pytest.skip("set MLP_TAPE_MNIST to the path of mnist.npz to run the tests on all 70,000 images")
    return str(Path(path).resolve())


@pytest.fixture(scope="session")
def mnist_5k() -> Dataset:
    return data.load("mnist_5k")


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without network, cache or tracking server."""
    home = str(tmp_path_factory.mktemp("home"))
    nowhere = "http://127.0.0.1:9"
    keep = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    return keep | {"HOME": home, "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "NO_PROXY": "127.0.0.1"}


@pytest.fixture(scope="session")
def run_py(offline: dict[str, str]) -> Run:
    """A function that calls the program as a person would: directory, arguments, environment."""

    def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            cwd=directory,
            env=offline | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def started(directory: Path, environment: dict[str, str], until: str, *arguments: str) -> Program:
    """The program as a process, once it has printed a line that begins so."""
    program = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert program.stdout is not None
    shown = ""
    for line in program.stdout:
        shown += line
        if line.startswith(until):
            return program
    raise AssertionError(shown)


class Server:
    """A real `mlflow server` on the loopback that can be stopped and started again.

    Args:
        directory: of its database and its artifacts.
        store: the URI of another database.
    """

    def __init__(self, directory: Path, store: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._store = store or f"sqlite:///{directory / 'server.db'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        artifacts = str(self._directory / "artifacts")
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += [
            "--workers",
            "1",
            "--backend-store-uri",
            self._store,
            "--artifacts-destination",
            artifacts,
        ]
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._directory, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=1).close()
                return
            time.sleep(0.1)
        raise TimeoutError((self._directory / "server.log").read_text())

    def stop(self) -> None:
        """Ends it as a reboot would: at once, with all its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.stop()
