"""What several tests need: the data, the program as a subprocess, and MLflow's answers."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # of the tests' own calls
os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "900"  # seconds, of the same: a busy server answers late

import mlflow
from mlflow.entities import ViewType

from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.storage import run_record
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.schedules import LearningRate
from mlp_tape.training import loop
from mlp_tape.training.batches import Batches
from mlp_tape.training.loop import Block, LoopConfig
from mlp_tape.training.state import initial
from mlp_tape.training.train_step import StepConfig

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 900.0  # seconds: only so that a test that hangs ends, far beyond need on however busy a machine
# A server would start nine processes more, for jobs of its own that nothing here has to do with.
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
SMALL_PIPE = 4096  # bytes: the smallest that Linux has
SMALL = ["dataset=digits", "epochs=1", "model.hidden_sizes=[8]", "report=none"]
Run = Callable[..., subprocess.CompletedProcess[str]]
Program = subprocess.Popen[str]
Found = TypeVar("Found")


def sample(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """All cases, of which those that are not among the kept ones are long: what is one of many."""
    return [
        case
        if case in kept
        else pytest.param(*(case if isinstance(case, tuple) else [case]), marks=pytest.mark.long)
        for case in cases
    ]


def wait_until(what: str, look: Callable[[], Found]) -> Found:
    """Looks again and again, until something is found that is true, and returns it."""
    ends = time.monotonic() + LIMIT
    while not (found := look()):
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def mnist_npz() -> str:
    """The path of full MNIST, or a skip."""
    path = os.environ.get("MLP_TAPE_MNIST", "")
    if not Path(path).is_file():
        pytest.skip("set MLP_TAPE_MNIST to the path of mnist.npz to run the tests on all 70,000 images")
    return str(Path(path).resolve())


@pytest.fixture(scope="session")
def mnist_5k() -> Dataset:
    return datasets.load("mnist_5k")


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
            timeout=LIMIT,
        )

    return run


def train(
    params: Params, x: Any, y: Any, config: StepConfig, *, lr: float, batch_size: int, **more: Any
) -> Iterator[Block]:
    """Trains parameters by `loop.train`; more: `shuffle_seed`, `first`, and what `LoopConfig` takes."""
    batches = Batches(x, y, batch_size, more.pop("shuffle_seed", None))
    state = initial(params, config.optimizer)
    state.global_step = more.pop("first", 0)
    return loop.train(state, batches, config, LearningRate(lr), LoopConfig(**more))


def mlp_tape(
    directory: Path, environment: dict[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """`python -m mlp_tape` as a person would type it."""
    return subprocess.run(
        [sys.executable, "-m", "mlp_tape", *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def runs_in(uri: str, experiment: str = "mlp_tape") -> list[mlflow.entities.Run]:
    """All runs of an experiment, as MLflow has them, the deleted ones, too."""
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], run_view_type=ViewType.ALL))


def send_the_rest(directory: Path, environment: dict[str, str]) -> None:
    """Sends what MLflow has not got of the runs below a directory.

    A run that was stopped waits for MLflow no longer than a moment, which on a busy machine may be too short.
    """
    if all(run_record.read(path.parent).sent for path in directory.rglob("run.json")):
        return
    done = mlp_tape(directory, environment, "sync", str(directory))
    assert done.returncode == 0, done.stdout + done.stderr


def started(
    directory: Path, environment: dict[str, str], until: str, *arguments: str, pipe: int = -1
) -> Program:
    """The program as a process, once it has printed a line that begins so.

    Args:
        directory: in which it runs.
        environment: of it.
        until: how that line begins.
        arguments: of it.
        pipe: how many bytes it may print that nobody reads: then it waits. With SMALL_PIPE it is never more
            than 12,500 bytes ahead of what was read, however long the test does something else.
    """
    program = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pipesize=pipe,
    )
    read_until(program, until)
    return program


def read_until(program: Program, until: str) -> None:
    """Reads what a program prints as far as a line that begins so."""
    assert program.stdout is not None
    shown = ""
    with killed_if_it_hangs(program):
        for line in program.stdout:
            shown += line
            if line.startswith(until):
                return
    raise AssertionError(shown)


def ended(program: Program) -> str:
    """What a program prints until its end, which is waited for."""
    assert program.stdout is not None
    with killed_if_it_hangs(program):
        shown = program.stdout.read()
        program.wait()
    return shown


@contextlib.contextmanager
def killed_if_it_hangs(program: "subprocess.Popen[Any]") -> Iterator[None]:
    """Kills a program that is waited for in the block beyond LIMIT."""
    timer = threading.Timer(LIMIT, program.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def stop_when(program: Program, what: str, look: Callable[[], Found]) -> Found:
    """Lets a program go on in short turns until something is found that is true, and leaves it stopped.

    However busy the machine is, it then is where it was seen to be: SIGCONT lets it go on.
    """

    def look_at_it_stopped() -> Found:
        program.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)  # for it takes a moment
        found = look()
        if not found:
            assert program.poll() is None, ended(program)
            program.send_signal(signal.SIGCONT)
        return found

    return wait_until(what, look_at_it_stopped)


def answers(url: str, server: "subprocess.Popen[bytes] | None", log: Path) -> bool:
    """Whether a server that was just started answers by now."""
    assert server is not None and server.poll() is None, log.read_text()
    with contextlib.suppress(OSError):
        urllib.request.urlopen(url, timeout=LIMIT).close()
        return True
    return False


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
                command,
                cwd=self._directory,
                env=os.environ | WITHOUT_JOBS,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        log_file = self._directory / "server.log"
        wait_until("the server", lambda: answers(f"{self.url}/health", self._process, log_file))

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
