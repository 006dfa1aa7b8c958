"""One epoch on full MNIST, ours beside the peers and the floor."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import worker
from benchmarks.measure import Series, Worker, in_turns

FLOOR = "floor: the matrix products at this machine's best rate"
PRODUCTS = "the step's eight matrix products alone, in XLA"
CLOSE = 1e-3  # the largest difference of a weight that the order of additions explains


def measured(data: Path, rounds: int) -> dict[str, Series]:
    """Seconds of an epoch after the first, by loop; all start from the same weights.

    Raises:
        AssertionError: a loop ended its first epoch with other weights, so it does not do the same.
    """
    with tempfile.TemporaryDirectory() as name:
        files = {variant: Path(name, f"{i}.npz") for i, variant in enumerate(worker.variants())}
        workers = {
            variant: Worker(["-m", "benchmarks.worker", variant, str(data), str(file)])
            for variant, file in files.items()
        }
        alone = {
            name: Worker(["-m", "benchmarks.floor", which])
            for name, which in ((FLOOR, "rate"), (PRODUCTS, "products"))
        }
        try:
            _compare({name: file for name, file in files.items() if workers[name].said == "ready"})
            return in_turns(rounds, alone | workers)
        finally:
            for each in (*workers.values(), *alone.values()):
                each.end()


def _compare(files: dict[str, Path]) -> None:
    """That all have trained the same epoch."""
    weights = {name: list(np.load(file).values()) for name, file in files.items()}
    first = next(iter(weights.values()))
    for name, arrays in weights.items():
        far = max(float(np.abs(a - b).max()) for a, b in zip(first, arrays, strict=True))
        assert far < CLOSE, f"{name} ends an epoch with other weights, by up to {far}"
        print(f"{name:50} the same weights after an epoch, to {far:.1e}", flush=True)
