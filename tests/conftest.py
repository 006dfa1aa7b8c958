"""What several tests need: the data, the program as a subprocess, and MLflow's answers."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # of the tests' own calls

from mlp_tape import data
from mlp_tape.data import Dataset

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


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
