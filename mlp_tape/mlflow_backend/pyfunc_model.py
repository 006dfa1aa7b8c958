"""The trained network as MLflow loads and serves it: NumPy only, in a file of its own.

MLflow copies this file into the logged model and runs it there, so it imports nothing of mlp_tape.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z))."""
    small = np.exp(-np.abs(z))
    values: np.ndarray = np.where(z < 0, small, 1) / (1 + small)
    return values


def gelu(z: np.ndarray) -> np.ndarray:
    """Weighs z by the normal distribution function."""
    from scipy.special import erf  # SciPy comes with MLflow

    values: np.ndarray = 0.5 * z * (1 + erf(z / np.float32(np.sqrt(2))))
    return values


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, np.float32(0.2) * z),
    "gelu": gelu,
    "silu": lambda z: z * sigmoid(z),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
}


class TapeModel(PythonModel):
    """Scores of each class, from `weights.npz` and `network.json`."""

    def load_context(self, context: Any) -> None:
        """Reads w1, b1, w2, b2, ..., the activation and what images are divided by."""
        with np.load(context.artifacts["weights"], allow_pickle=False) as archive:
            self.params = dict(archive)
        network = json.loads(Path(context.artifacts["network"]).read_text())
        self.activation = ACTIVATIONS[network["activation"]]
        self.scale = np.float32(network["scale"])

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """Computes the scores.

        Args:
            context: MLflow's.
            model_input: images as in training, [n, ...]; uint8 where those were integers.
            params: not used.

        Returns:
            float32 [n, classes]; the predicted class is the column of the highest.
        """
        h: np.ndarray = (
            model_input.reshape(len(model_input), -1).astype(np.float32) / self.scale
        )  # [n,28,28] -> [n,784]
        depth = len(self.params) // 2
        for layer in range(1, depth):
            h = self.activation(h @ self.params[f"w{layer}"] + self.params[f"b{layer}"])
        scores: np.ndarray = h @ self.params[f"w{depth}"] + self.params[f"b{depth}"]  # [n,128] -> [n,10]
        return scores


set_model(TapeModel())
