"""Measurement of cost against batch size, width, depth, jobs of a sweep, and metric rows.

As a program, a worker that trains an epoch per line of input: `-m benchmarks.growth IMAGES BATCH HIDDEN ...`.
"""

import functools
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.commands import RUN
from benchmarks.measure import Series, Worker, in_turns

BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
WIDTHS = (64, 256, 1024, 4096)
DEPTHS = (1, 2, 4, 8, 16)
JOBS = (1, 2, 4, 8, 16, 32)
ROWS = (1_000, 10_000, 100_000, 1_000_000)
IMAGES = 12_800  # per epoch for width and depth: a hundred steps


def measured(rounds: int) -> dict[str, dict[str, Series]]:
    """Measures time and peak memory, keyed by the varied quantity and its value."""
    shapes = {
        "batch size": {str(b): (60_000, b, (256, 128)) for b in BATCHES},
        "width": {str(width): (IMAGES, 128, (width, width)) for width in WIDTHS},
        "depth": {str(depth): (IMAGES, 128, (256,) * depth) for depth in DEPTHS},
    }
    found = {name: _epochs(rounds, points) for name, points in shapes.items()}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        measure.command([RUN, "dataset=mnist_5k", "epochs=1"], directory)
        found["jobs"] = in_turns(rounds, {str(n): _sweep(directory, n) for n in JOBS})
        found["rows"] = in_turns(rounds, {str(n): _rows(directory, n) for n in ROWS})
    return found


def _epochs(rounds: int, points: dict[str, tuple[int, int, Sequence[int]]]) -> dict[str, Series]:
    workers = {
        name: Worker(["-m", "benchmarks.growth", str(images), str(batch), *map(str, hidden)])
        for name, (images, batch, hidden) in points.items()
    }
    try:
        return in_turns(rounds, workers)
    finally:
        for worker in workers.values():
            worker.end()


def _sweep(directory: Path, jobs: int) -> Callable[[], tuple[float, float]]:
    rates = ",".join(f"{0.001 * i:g}" for i in range(1, jobs + 1))
    return functools.partial(
        measure.command, [RUN, "-m", "dataset=mnist_5k", "epochs=1", f"lr={rates}"], directory
    )


def _rows(directory: Path, rows: int) -> Callable[[], tuple[float, float]]:
    """Returns a measurement of a run with a number of steps: batches of one small image, a small network."""
    epochs = max(1, rows // 10_000)
    steps = rows // epochs
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (steps, 8, 8), np.uint8), np.arange(steps) % 10
    file = directory / f"few-{steps}.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])
    arguments = ["dataset=arrays", f"dataset.path={file}", "batch_size=1", f"epochs={epochs}"]
    small = ["model.hidden_sizes=[16]", "lr=0.01", "log_every=1000"]
    return functools.partial(measure.command, [RUN, *arguments, *small], directory)


def main(images: int, batch: int, *hidden: int) -> None:
    from mlp_tape.system import tensorflow_setup

    tensorflow_setup.import_tensorflow()
    from mlp_tape.runs.trainer import step_config
    from mlp_tape.tensors import network
    from mlp_tape.tensors.schedules import LearningRate
    from mlp_tape.training import loop
    from mlp_tape.training.batches import Batches
    from mlp_tape.training.loop import LoopConfig
    from mlp_tape.training.state import initial

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (images, 28, 28), np.uint8), (np.arange(images) % 10).astype(np.int32)
    config, batches = step_config("relu", "mse", "sgd", 255.0), Batches(x, y, batch)
    state = initial(network.init_params([784, *hidden, 10], 0.02, 0), config.optimizer)

    def epoch() -> None:
        state.global_step = 0
        for _block in loop.train(state, batches, config, LearningRate(1e-3), LoopConfig(epochs=1)):
            pass

    epoch()
    measure.on_each_line(epoch)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
