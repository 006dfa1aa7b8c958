"""Measurement of one epoch on full MNIST: mlp_tape, other frameworks, and a lower bound."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import worker
from benchmarks.measure import Series, Worker, in_turns

FLOOR = "floor: the matrix products at this machine's best rate"
PRODUCTS = "the step's eight matrix products alone, in XLA"
TOLERANCE = 1e-3  # maximum difference of weights due to the order of additions


def measured(data: Path, rounds: int) -> dict[str, Series]:
    """Measures an epoch after the first one for each variant; all start from the same weights.

    Raises:
        AssertionError: the variants differ in their weights after the first epoch.
    """
    with tempfile.TemporaryDirectory() as name:
        files = {variant: Path(name, f"{i}.npz") for i, variant in enumerate(worker.variants())}
        workers = {
            variant: Worker(["-m", "benchmarks.worker", variant, str(data), str(file)], variant == "NumPy")
            for variant, file in files.items()
        }
        bounds = {
            name: Worker(["-m", "benchmarks.floor", which], with_openblas=which == "rate")
            for name, which in ((FLOOR, "rate"), (PRODUCTS, "products"))
        }
        try:
            _compare({name: file for name, file in files.items() if file.exists()})
            found = in_turns(rounds, bounds | workers)
        finally:
            for each in (*workers.values(), *bounds.values()):
                each.end()
    for name, series in found.items():
        series.kernel = (bounds | workers)[name].kernel
    return found


def _compare(files: dict[str, Path]) -> None:
    """Checks that all variants have the same weights after an epoch."""
    weights = {name: list(np.load(file).values()) for name, file in files.items()}
    first = next(iter(weights.values()))
    for name, arrays in weights.items():
        difference = max(float(np.abs(a - b).max()) for a, b in zip(first, arrays, strict=True))
        assert difference < TOLERANCE, f"the weights of {name} after an epoch differ by up to {difference}"
        print(f"{name:50} same weights after an epoch, within {difference:.1e}", flush=True)
