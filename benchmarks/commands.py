"""Measurements of whole commands, from the start of the process to its exit, with and without training."""

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import ROOT, Series, command, in_turns

RUN = str(ROOT / "run.py")
PROGRAMS = ROOT / "benchmarks" / "programs"

OURS = "mlp_tape, all recorded"
TUTORIAL = "tutorial loop, eager, untracked"
KERAS = "Keras fit, a callback logs each batch to MLflow"
IMPORT = "python -c 'import tensorflow'"


@contextmanager
def _directory(data: Path) -> Iterator[Path]:
    """Yields a directory with an MLflow database, as for every run but the first."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        command([RUN, f"dataset.path={data}", "epochs=1"], directory)
        shutil.rmtree(directory / "outputs")
        yield directory


def _measurement(directory: Path, *arguments: str, expected: int = 0) -> Callable[[], tuple[float, float]]:
    """Returns a function that runs a command in a directory and measures it."""
    return functools.partial(command, arguments, directory, expected)


def whole(data: Path, rounds: int) -> dict[str, Series]:
    """Measures ten epochs on full MNIST."""
    file = str(data)
    with _directory(data) as directory:
        tutorial, keras = str(PROGRAMS / "tutorial.py"), str(PROGRAMS / "keras_callback.py")
        variants = {
            OURS: _measurement(directory, RUN, f"dataset.path={file}"),
            "mlp_tape, tracking.enabled=false": _measurement(
                directory, RUN, f"dataset.path={file}", "tracking.enabled=false"
            ),
            TUTORIAL: _measurement(directory, tutorial, file),
            "tutorial loop, eager, mlflow.log_metric each step": _measurement(
                directory, tutorial, file, "--mlflow"
            ),
            KERAS: _measurement(directory, keras, file),
        }
        return in_turns(rounds, variants)


def first_run(data: Path) -> tuple[float, float]:
    """Measures the first run in a fresh clone, without caches and without a database."""
    with tempfile.TemporaryDirectory() as name:
        return command([RUN, f"dataset.path={data}"], Path(name), XDG_CACHE_HOME=name)


def without_training(data: Path, rounds: int) -> dict[str, Series]:
    """Measures commands that do not train, TensorFlow's import for comparison, and the smoke experiment."""
    with _directory(data) as directory:
        variants = {
            IMPORT: _measurement(directory, "-c", "import tensorflow"),
            "--help": _measurement(directory, RUN, "--help"),
            "lrr=0.01 (a typo)": _measurement(directory, RUN, "lrr=0.01", expected=2),
            "--cfg job": _measurement(directory, RUN, "--cfg", "job"),
            "+experiment=smoke": _measurement(directory, RUN, "+experiment=smoke"),
        }
        return in_turns(rounds, variants)
