"""Worker that trains an epoch per line of input: `-m benchmarks.worker VARIANT MNIST.npz WEIGHTS.npz`."""

import importlib
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from benchmarks import loops, measure

LOOPS = ("ours", "tutorial", "keras_fit", "jax_scan", "pytorch", "numpy_loop")


def variants() -> dict[str, str]:
    """Returns the module of each variant of the loop, by the name of the variant."""
    return {
        name: module
        for module in LOOPS
        for name in importlib.import_module(f"benchmarks.loops.{module}").VARIANTS
    }


def main(variant: str, data: str, weights: str) -> None:
    with np.load(data) as archive:
        x, y = archive["x_train"], archive["y_train"].astype(np.int32)
    module = importlib.import_module(f"benchmarks.loops.{variants()[variant]}")
    try:
        epoch, current = module.prepare(variant, x, y, loops.first_weights())
    except ImportError as error:
        print(f"not installed: {error}", flush=True)
        return
    epoch()  # compiles
    np.savez(weights, *current())
    measure.on_each_line(epoch)


if __name__ == "__main__":
    main(*sys.argv[1:])
