"""Whole commands, process start to exit, and what can be had without training."""

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
    """A directory in which MLflow's database is there already, as it is for every run but the first."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        command([RUN, f"dataset.path={data}", "epochs=1"], directory)
        shutil.rmtree(directory / "outputs")
        yield directory


def _again(directory: Path, *arguments: str, expected: int = 0) -> Callable[[], tuple[float, float]]:
    return functools.partial(command, arguments, directory, expected)


def whole(data: Path, rounds: int) -> dict[str, Series]:
    """Ten epochs on full MNIST."""
    file = str(data)
    with _directory(data) as directory:
        tutorial, keras = str(PROGRAMS / "tutorial.py"), str(PROGRAMS / "keras_callback.py")
        competitors = {
            OURS: _again(directory, RUN, f"dataset.path={file}"),
            "mlp_tape, tracking.enabled=false": _again(
                directory, RUN, f"dataset.path={file}", "tracking.enabled=false"
            ),
            TUTORIAL: _again(directory, tutorial, file),
            "tutorial loop, eager, mlflow.log_metric each step": _again(
                directory, tutorial, file, "--mlflow"
            ),
            KERAS: _again(directory, keras, file),
        }
        return in_turns(rounds, competitors)


def first_of_all(data: Path) -> tuple[float, float]:
    """The same where nothing is cached and no database is there: the first run in a fresh clone."""
    with tempfile.TemporaryDirectory() as name:
        return command([RUN, f"dataset.path={data}"], Path(name), XDG_CACHE_HOME=name)


def without_training(data: Path, rounds: int) -> dict[str, Series]:
    """What answers before anything is trained, beside TensorFlow's import; and the quick experiment."""
    with _directory(data) as directory:
        competitors = {
            IMPORT: _again(directory, "-c", "import tensorflow"),
            "--help": _again(directory, RUN, "--help"),
            "lrr=0.01 (a typo)": _again(directory, RUN, "lrr=0.01", expected=2),
            "--cfg job": _again(directory, RUN, "--cfg", "job"),
            "+experiment=smoke": _again(directory, RUN, "+experiment=smoke"),
        }
        return in_turns(rounds, competitors)
