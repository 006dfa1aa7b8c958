"""The trained network as MLflow loads and serves it: NumPy only, in a file of its own.

MLflow copies this file into the logged model and runs it there, so it imports nothing of mlp_tape.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # comes with mlflow.pyfunc, like SciPy
from mlflow.exceptions import MlflowException as MlflowException  # also imported from here
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

# For the `network.json` of an earlier version
UNCHECKED = {
    "loss": "",
    "range": (-np.inf, np.inf),
    "accepted": (-np.inf, np.inf),
    "least_peak": 0.0,
    "offset": 0.0,
}
OUTPUTS = ("auto", "scores", "class", "probabilities")


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z))."""
    small = np.exp(-np.abs(z))
    values: np.ndarray = np.where(z < 0, small, 1) / (1 + small)
    return values


def gelu(z: np.ndarray) -> np.ndarray:
    """Weighs z by the normal distribution function."""
    from scipy.special import erf

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


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(score), divided by the sum over the classes."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    values: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return values


def nearest_probabilities(scores: np.ndarray) -> np.ndarray:
    """The probabilities with the smallest Euclidean distance to the scores.

    The squared error of one-hot targets is smallest for scores that are the probabilities of the classes. A
    trained network only comes near: its scores may be negative, and their sum is not exactly 1.

    Source: Duchi et al. 2008, "Efficient projections onto the l1-ball", figure 1.
    """
    descending = -np.sort(-scores, axis=1)
    excess = np.cumsum(descending, axis=1) - 1
    positive = (descending * np.arange(1, scores.shape[1] + 1) > excess).sum(axis=1, keepdims=True).clip(1)
    values: np.ndarray = np.maximum(scores - np.take_along_axis(excess, positive - 1, 1) / positive, 0)
    return values


PROBABILITIES = {"cross_entropy": softmax, "mse": nearest_probabilities}


def refusal(problem: str, remedy: str) -> MlflowException:
    """The error for a request that cannot be answered, which a server returns with status 400."""
    return MlflowException(f"{problem}: {remedy}", INVALID_PARAMETER_VALUE)


def values_of(table: pd.DataFrame) -> np.ndarray:
    """Returns the rows of a table with a column for each pixel, or with one column of images."""
    if table.empty:
        return np.empty(table.shape)
    if len(table.columns) == 1 and table.dtypes.iloc[0] == np.dtype(object):
        return np.array(table.iloc[:, 0].tolist())
    names = [str(name) for name in table.columns]
    parts = [part for part in (re.fullmatch(r"(.*?)(\d+)", name) for name in names) if part]
    prefixes, numbers = {part[1] for part in parts}, [int(part[2]) for part in parts]
    ranges = [list(range(first, first + len(names))) for first in (0, 1)]
    if len(parts) == len(names) and len(prefixes) == 1 and sorted(numbers) in ranges:
        table = table.iloc[:, np.argsort(numbers)]  # pixel0, pixel1, ..., in any order
    elif all(
        re.fullmatch(r"[-+.\deE]*\d[-+.\deE]*", name) for name in names
    ):  # the first row of a file without a header
        raise refusal("the column names are not those of pixels", "add a header row pixel0,pixel1,...")
    values: np.ndarray = table.to_numpy(np.float64, na_value=np.nan)
    return values


class TapeModel(PythonModel):
    """Class, probabilities and scores of images, from `weights.npz` and `network.json`."""

    def load_context(self, context: Any) -> None:
        """Reads w1, b1, w2, b2, ..., and the description of the network and of the values it accepts."""
        with np.load(context.artifacts["weights"], allow_pickle=False) as archive:
            self.params = dict(archive)
        self.network = UNCHECKED | json.loads(Path(context.artifacts["network"]).read_text())
        self.activation = ACTIVATIONS[self.network["activation"]]
        self.scale, self.offset = (np.float32(self.network[key]) for key in ("scale", "offset"))
        numbers = list(range(self.params[f"w{len(self.params) // 2}"].shape[1]))
        self.classes = np.array(self.network.get("classes", numbers))  # the label of each class
        self.class_names = self.network.get("class_names", list(map(str, numbers)))

    # MLflow evaluates the annotation of `model_input`, and rejects one for "array or table".
    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Any:
        """Computes scores, classes or probabilities.

        Args:
            context: MLflow's.
            model_input: images with values as in the data set, of any integer or float dtype: an array
                [n, ...] in their shape or as rows, or a table with a column for each pixel.
            params: `output`, one of OUTPUTS; `auto` is `class` for a table and `scores` for an array.

        Returns:
            scores: float32 [n, classes]; the predicted class is the column of the highest.
            class: a Series of labels as in the data: int64, bool or strings.
            probabilities: a DataFrame with the columns `class`, `probability_0`, `probability_1`, ..., with
                the names of classes that have names.

        Raises:
            MlflowException: the images are not such as the model was trained on.
        """
        output = (params or {}).get("output", "auto")
        if output not in OUTPUTS:
            raise refusal(f"output={output!r} is unknown", f"use one of {', '.join(OUTPUTS)}")
        is_table = isinstance(model_input, pd.DataFrame | dict)
        scores = self._scores(self._checked(self._rows(model_input)))
        if output == "scores" or (output == "auto" and not is_table):
            return scores
        index = model_input.index if isinstance(model_input, pd.DataFrame) else None
        classes = pd.Series(self.classes[scores.argmax(axis=1)], index, name="class")
        return self._with_probabilities(classes, scores) if output == "probabilities" else classes

    def _rows(self, model_input: Any) -> np.ndarray:
        """Returns images as rows, of any dtype [n, pixels]."""
        shape, pixels = tuple(self.network["shape"]), len(self.params["w1"])
        try:
            if isinstance(model_input, dict):  # MLflow's server: "instances" with a name for each value
                model_input = pd.DataFrame(model_input)
            images = (
                values_of(model_input) if isinstance(model_input, pd.DataFrame) else np.asarray(model_input)
            )
        except (TypeError, ValueError) as error:
            raise refusal(f"the images are not numbers ({error})", "send integers or floats") from error
        if images.dtype.kind not in "buif":
            raise refusal(f"the images are of dtype {images.dtype}", "send integers or floats")
        if images.ndim and not len(images):
            return np.empty((0, pixels))
        if images.shape[1:] not in (shape, (pixels,)):
            expected = f"send [n, {', '.join(map(str, shape))}] or rows of {pixels} values"
            raise refusal(f"the images are of shape {list(images.shape)}", expected)
        return images.reshape(len(images), -1)  # [n,28,28] -> [n,784]

    def _checked(self, rows: np.ndarray) -> np.ndarray:
        """Returns images whose values are such as in the data set."""
        if not np.isfinite(rows).all():
            raise refusal("the images contain NaN or infinity", "send finite numbers")
        if rows.size:
            low, high = float(rows.min()), float(rows.max())
            lowest, highest = self.network["accepted"]
            if low < lowest or high > highest or 0 < max(-low, high) < self.network["least_peak"]:
                known = "the model was trained on values from {:g} to {:g}".format(*self.network["range"])
                raise refusal(
                    f"the images have values from {low:g} to {high:g}, but {known}",
                    "scale them like the images that the model was trained on",
                )
        return rows

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        h: np.ndarray = (rows.astype(np.float32) - self.offset) / self.scale
        depth = len(self.params) // 2
        for layer in range(1, depth):
            h = self.activation(h @ self.params[f"w{layer}"] + self.params[f"b{layer}"])
        scores: np.ndarray = h @ self.params[f"w{depth}"] + self.params[f"b{depth}"]  # [n,128] -> [n,10]
        return scores

    def _with_probabilities(self, classes: pd.Series, scores: np.ndarray) -> pd.DataFrame:
        loss = self.network["loss"]
        if loss not in PROBABILITIES:
            raise refusal(
                f"the scores of loss={loss} are not known to be probabilities", "use output=class or scores"
            )
        names = [f"probability_{name}" for name in self.class_names]
        values = PROBABILITIES[loss](scores.astype(np.float64))
        return pd.concat([classes, pd.DataFrame(values, classes.index, names)], axis=1)


set_model(TapeModel())
