"""NumPy, with gradients derived by hand."""

from typing import Any

import numpy as np

from benchmarks.loops import BATCH, LR, Loop, Weights

VARIANTS = ("NumPy",)


def prepare(variant: str, x: Any, y: Any, start: Weights) -> Loop:
    images = x.reshape(-1, 784).astype(np.float32) / np.float32(255)
    labels, lr = np.eye(10, dtype=np.float32)[y], np.float32(LR)
    w1, b1, w2, b2, w3, b3 = params = [array.copy() for array in start]

    def epoch() -> float:
        loss = 0.0
        for i in range(0, len(images), BATCH):
            h0, target = images[i : i + BATCH], labels[i : i + BATCH]
            h1 = np.maximum(h0 @ w1 + b1, 0)
            h2 = np.maximum(h1 @ w2 + b2, 0)
            error = h2 @ w3 + b3 - target
            loss = float(np.mean(error * error))
            d3 = error * np.float32(2 / error.size)
            d2 = (d3 @ w3.T) * (h2 > 0)
            d1 = (d2 @ w2.T) * (h1 > 0)
            grads = (h0.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ d3, d3.sum(0))
            for param, grad in zip(params, grads, strict=True):
                param -= lr * grad
        return loss

    return epoch, lambda: params
