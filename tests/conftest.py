"""Shared fixtures and helpers: data, the program as a subprocess, and access to MLflow."""

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
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

os.environ["MLP_TAPE_PROGRAM"] = "run.py"  # what messages in this process propose to type
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # for calls made by the tests themselves
os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "900"  # seconds; a busy server responds slowly
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # tests that a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

import mlflow
from mlflow.entities import ViewType

from mlp_tape.config.settings import DatasetSettings, Settings, TrackingSettings, to_dict
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.storage import run_record
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.schedules import LearningRate
from mlp_tape.training import loop
from mlp_tape.training.batches import Batches
from mlp_tape.training.loop import Block, LoopConfig
from mlp_tape.training.state import initial
from mlp_tape.training.train_step import StepConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from postgres import Postgres

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 900.0  # seconds after which a test that hangs is ended; far more than a busy machine needs
# By default, an MLflow server starts nine more processes for jobs that these tests do not use.
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
FEW, VERY_MANY = 5, 60  # similar cases
SMALL_PIPE = 4096  # bytes, the minimum on Linux
SMALL = ["dataset=digits", "epochs=1", "model.hidden_sizes=[8]", "report=none"]
Run = Callable[..., subprocess.CompletedProcess[str]]
Program = subprocess.Popen[str]
Found = TypeVar("Found")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds an option for CI, which has no time for all long tests."""
    parser.addoption(
        "--share", metavar="I/N", help="of the modules with selected tests, run every N-th, from I"
    )


@pytest.hookimpl(trylast=True)  # after the selection by markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Selects a share of the modules."""
    if config.getoption("--share"):
        number, n = map(int, config.getoption("--share").split("/"))
        modules = sorted({item.path for item in items})[number - 1 :: n]
        config.hook.pytest_deselected(items=[item for item in items if item.path not in modules])
        items[:] = [item for item in items if item.path in modules]


def sample(cases: Iterable[Any], *default: Any) -> list[Any]:
    """Returns all cases, and marks those that are not in `default` as long.

    Of many similar cases, the default tests then run only a few. Of more than `FEW`, most are marked as soak
    as well, so that CI runs about `FEW`; of more than `VERY_MANY`, which are short, it runs every sixth.
    """
    every = list(cases)
    stride = 6 if len(every) > VERY_MANY else -(-len(every) // FEW)
    found = []
    for number, case in enumerate(every):
        marks = [pytest.mark.long]
        if number % stride:
            marks.append(pytest.mark.soak)
        values = case if isinstance(case, tuple) else [case]
        found.append(case if case in default else pytest.param(*values, marks=marks))
    return found


def wait_until(what: str, find: Callable[[], Found]) -> Found:
    """Calls `find` repeatedly until it returns a true value, and returns that value."""
    deadline = time.monotonic() + LIMIT
    while not (found := find()):
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def mnist_npz() -> str:
    """The path of the full MNIST file; skips the test if it is not available."""
    path = os.environ.get("MLP_TAPE_MNIST", "")
    if not Path(path).is_file():
        pytest.skip("set MLP_TAPE_MNIST to the path of mnist.npz to run the tests on all 70,000 images")
    return str(Path(path).resolve())


@pytest.fixture(scope="session")
def mnist_5k() -> Dataset:
    """The data set `mnist_5k`."""
    return datasets.load("mnist_5k")


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables without network access, cache or tracking server."""
    home = str(tmp_path_factory.mktemp("home"))
    unreachable = "http://127.0.0.1:9"
    inherited = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    return inherited | {
        "HOME": home,
        "HTTPS_PROXY": unreachable,
        "HTTP_PROXY": unreachable,
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="session")
def run_py(offline: dict[str, str]) -> Run:
    """A function that runs the program in a directory, with arguments and environment variables."""

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
    """Trains parameters with `loop.train`.

    Args:
        params: parameters, updated in place.
        x: images.
        y: labels.
        config: config of the step.
        lr: learning rate.
        batch_size: number of images in a batch.
        more: `shuffle_seed`, `first` (the global step to start from), and arguments of `LoopConfig`.
    """
    batches = Batches(x, y, batch_size, more.pop("shuffle_seed", None))
    state = initial(params, config.optimizer)
    state.global_step = more.pop("first", 0)
    return loop.train(state, batches, config, LearningRate(lr), LoopConfig(**more))


def mlp_tape(
    directory: Path, environment: dict[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Runs `python -m mlp_tape` in a directory."""
    return subprocess.run(
        [sys.executable, "-m", "mlp_tape", *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def runs_in(uri: str, experiment: str = "mlp_tape") -> list[mlflow.entities.Run]:
    """Returns all MLflow runs of an experiment, including deleted ones."""
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], run_view_type=ViewType.ALL))


def ended_run(directory: Path) -> RunRecord:
    """Saves a run that has failed, with 100 rows and one file; its store is the database next to it."""
    tracking = TrackingSettings(uri=f"sqlite:///{directory / 'mlflow.db'}", experiment="mlp_tape")
    settings = to_dict(Settings(dataset=DatasetSettings(name="digits"), tracking=tracking))
    record = RunRecord(directory, settings=settings, uri=str(tracking.uri), token="a token")
    record.mark_started()
    record.mark_ended("FAILED", "no reason")
    (directory / "config.yaml").write_text("lr: 0.1")
    with Journal(directory) as rows:
        rows.append(Row("train/loss", step, 0.5, 1_000 + step) for step in range(100))
    return record


def sync_unsent(directory: Path, environment: dict[str, str]) -> None:
    """Sends what MLflow is missing of the runs below a directory.

    A stopped run waits only briefly for MLflow, which may be too short on a busy machine.
    """
    if all(run_record.read(path.parent).sent for path in directory.rglob("run.json")):
        return
    done = mlp_tape(directory, environment, "sync", str(directory))
    assert done.returncode == 0, done.stdout + done.stderr


def start_program(
    directory: Path, environment: dict[str, str], until: str, *arguments: str, pipe: int = -1
) -> Program:
    """Starts the program, and returns it once it has printed a line with a given prefix.

    Args:
        directory: working directory.
        environment: environment variables.
        until: prefix of the line.
        arguments: command-line arguments.
        pipe: capacity of the pipe for its output in bytes; when it is full, the program blocks. With
            SMALL_PIPE, it is never more than 12,500 bytes ahead of what the test has read.
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
    """Reads the output of a program up to and including a line with the prefix `until`."""
    assert program.stdout is not None
    output = ""
    with kill_after_limit(program):
        for line in program.stdout:
            output += line
            if line.startswith(until):
                return
    raise AssertionError(output)


def wait_for_exit(program: Program) -> str:
    """Waits until a program exits, and returns its remaining output."""
    assert program.stdout is not None
    with kill_after_limit(program):
        output = program.stdout.read()
        program.wait()
    return output


@contextlib.contextmanager
def kill_after_limit(program: "subprocess.Popen[Any]") -> Iterator[None]:
    """Kills a program if the block takes longer than LIMIT."""
    timer = threading.Timer(LIMIT, program.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def pause_when(program: Program, what: str, find: Callable[[], Found]) -> Found:
    """Runs a program in short intervals until `find` returns a true value, and returns that value.

    The program is paused then, in the state in which it was observed, however busy the machine is; SIGCONT
    continues it.
    """

    def find_while_paused() -> Found:
        program.send_signal(signal.SIGSTOP)
        os.waitid(
            os.P_PID, program.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT
        )  # SIGSTOP takes effect with a delay
        found = find()
        if not found:
            assert program.poll() is None, wait_for_exit(program)
            program.send_signal(signal.SIGCONT)
        return found

    return wait_until(what, find_while_paused)


def responds(url: str, server: "subprocess.Popen[bytes] | None", log: Path) -> bool:
    """Returns whether a server that was just started responds."""
    assert server is not None and server.poll() is None, log.read_text()
    with contextlib.suppress(OSError):
        urllib.request.urlopen(url, timeout=LIMIT).close()
        return True
    return False


class Server:
    """A real `mlflow server` on the loopback interface that can be stopped and restarted.

    Args:
        directory: directory of its database and artifacts.
        store: URI of another database to use; empty for the one in `directory`.
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
        """Starts the server and waits until it responds."""
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
        wait_until("the server", lambda: responds(f"{self.url}/health", self._process, log_file))

    def stop(self) -> None:
        """Kills the server with all its workers, as a reboot would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running MLflow server."""
    instance = Server(tmp_path_factory.mktemp("server"))
    instance.start()
    yield instance
    instance.stop()


@pytest.fixture
def postgres() -> "Iterator[Postgres]":
    """A running PostgreSQL server."""
    from postgres import Postgres

    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> "list[Figure]":
    """The figures that a test draws; nothing is written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from mlp_tape.reports import style

    figures: list[Figure] = []

    def draw(figure: "Figure", _: Path) -> None:
        FigureCanvasAgg(figure).draw()
        figures.append(figure)

    monkeypatch.setattr(style, "save", draw)
    return figures


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The data set `digits`."""
    return datasets.load("digits")
