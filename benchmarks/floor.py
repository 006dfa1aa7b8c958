"""Worker process that measures the time of an epoch's matrix products alone, once per line of input.

`-m benchmarks.floor rate` computes the time at the highest rate that large square products reach on this
machine; `-m benchmarks.floor products` runs the products in their actual shapes, in XLA.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from benchmarks import loops, measure

SIZES = (512, 1024, 2048)
SECONDS = 0.3  # per library and size
IMAGES = 60_000


def at_the_best_rate() -> Callable[[], float]:
    """Returns a function that computes the time of an epoch at the highest rate of NumPy or TensorFlow."""
    import tensorflow as tf

    products: list[tuple[int, Callable[[], Any]]] = []
    for n in SIZES:
        a = np.random.default_rng(0).standard_normal((n, n), np.float32)
        b = tf.constant(a)
        products += [(n, lambda a=a: a @ a), (n, lambda b=b: (b @ b).numpy())]
    for _n, product in products:
        product()

    def seconds() -> float:
        best = 0.0
        for n, product in products:
            began, done = time.perf_counter(), 0
            while time.perf_counter() - began < SECONDS:
                product()
                done += 1
            best = max(best, done * 2.0 * n**3 / (time.perf_counter() - began))
        return loops.multiplications(IMAGES) / best

    return seconds


def products_alone() -> Callable[[], float]:
    """Returns a function that measures the eight products of each step of an epoch.

    The gradients of each step are used as the weights of the next one.
    """
    import tensorflow as tf

    steps = -(-IMAGES // loops.BATCH)
    x = tf.random.normal([loops.BATCH, loops.SIZES[0]])

    @tf.function(jit_compile=True, autograph=False)
    def epoch(*start: tf.Tensor) -> tf.Tensor:
        def step(i: tf.Tensor, w1: tf.Tensor, w2: tf.Tensor, w3: tf.Tensor) -> tuple[tf.Tensor, ...]:
            h1 = x @ w1
            h2 = h1 @ w2
            d3 = h2 @ w3
            d2 = tf.matmul(d3, w3, transpose_b=True)
            d1 = tf.matmul(d2, w2, transpose_b=True)
            grads = ((x, d1), (h1, d2), (h2, d3))
            return i + 1, *(tf.matmul(h, d, transpose_a=True) for h, d in grads)

        return tf.while_loop(lambda i, *_: i < steps, step, (0, *start))[1]

    weights = [tf.constant(array) for array in loops.first_weights()[::2]]

    def seconds() -> float:
        began = time.perf_counter()
        epoch(*weights).numpy()
        return time.perf_counter() - began

    seconds()
    return seconds


def main(which: str) -> None:
    seconds = {"rate": at_the_best_rate, "products": products_alone}[which]()
    measure.print_ready()
    for _line in sys.stdin:
        print(seconds(), measure.peak_mib(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
