"""Export of the trained network as a TensorFlow SavedModel, from the files in the run's directory."""

import functools
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.errors import DataError
from mlp_tape.storage import run_paths
from mlp_tape.tensors import network
from mlp_tape.tensors.activations import ACTIVATIONS
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.scale import Scale

# For the `network.json` of an earlier version
UNCHECKED = {"range": (-np.inf, np.inf), "accepted": (-np.inf, np.inf), "least_peak": 0.0, "offset": 0.0}
DTYPES = (tf.uint8, tf.int32, tf.int64, tf.float32, tf.float64)


class TapeModule(tf.Module):  # type: ignore[misc]
    """The network as a function of images, with its parameters.

    Args:
        params: parameters as returned by `init_params`.
        activation: a key of ACTIVATIONS.
        scale: offset and divisor of the images.
        check: returns operations that fail for images that the network must not answer.
    """

    def __init__(
        self, params: Params, activation: str, scale: Scale, check: Callable[[tf.Tensor], list[tf.Operation]]
    ) -> None:
        super().__init__()
        self.params = params
        self.activation = ACTIVATIONS[activation]
        # With a constant, TensorFlow would multiply by the inverse, which changes the last bits.
        self.scale = tf.Variable(_number_or_row(scale.divisor), trainable=False, name="scale")
        self.offset = tf.Variable(_number_or_row(scale.offset or (0.0,)), trainable=False, name="offset")
        self.check = check

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Computes the logits: unscaled images as in the data set, [n, ...] -> float32 [n, classes]."""
        rows = tf.reshape(images, [-1, self.params["w1"].shape[0]])  # [n,28,28] -> [n,784]
        return self._logits(tf.cast(rows, tf.float32))

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def _logits(self, rows: tf.Tensor) -> tf.Tensor:  # traced once for all dtypes and shapes
        with tf.control_dependencies(self.check(rows)):
            x = (rows - self.offset) / self.scale
        return network.forward(self.params, x, self.activation)  # [n,784] -> [n,10]


def _number_or_row(values: tuple[float, ...]) -> tf.Tensor:
    """Returns a scalar for one number, else a row [d], float32."""
    return tf.constant(values[0] if len(values) == 1 else values, tf.float32)


def assertions(about: dict[str, Any], rows: tf.Tensor) -> list[tf.Operation]:
    """Asserts that the values of images are such as in the data set, as `pyfunc_model` does.

    Args:
        about: content of `network.json`.
        rows: float32 [n, d].
    """
    lowest, highest = about["accepted"]
    low, high, is_empty = tf.reduce_min(rows), tf.reduce_max(rows), tf.equal(tf.size(rows), 0)
    peak = tf.maximum(-low, high)
    is_in_range = (low >= lowest) & (high <= highest) & ((peak <= 0) | (peak >= about["least_peak"]))
    known = "but the model was trained on values from {:g} to {:g}".format(*about["range"])
    is_finite = tf.reduce_all(tf.math.is_finite(rows))
    return [
        tf.debugging.Assert(is_finite, ["the images contain NaN or infinity"]),
        tf.debugging.Assert(
            is_empty | is_in_range | ~is_finite, ["the images have values from", low, "to", high, known]
        ),
    ]


def load(directory: Path) -> tuple[TapeModule, dict[str, Any]]:
    """Returns the network of a run, and the content of its `network.json`.

    Args:
        directory: directory of a run, with `weights.npz` and `network.json`.
    """
    about = UNCHECKED | json.loads((directory / run_paths.NETWORK).read_bytes())
    with np.load(directory / run_paths.WEIGHTS, allow_pickle=False) as archive:
        params = network.as_params(dict(archive))
    check = functools.partial(assertions, about)
    scale = Scale.of_json(about["scale"], about["offset"])
    return TapeModule(params, about["activation"], scale, check), about


def scores(module: TapeModule, images: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the logits of images [n, ...], float32 [n, classes].

    Raises:
        DataError: the images are not such as the network was trained on.
    """
    try:
        logits: NDArray[np.float32] = module(tf.constant(images)).numpy()
    except tf.errors.InvalidArgumentError as error:
        problem = " ".join(re.findall(r"b?'([^']*)'", str(error))) or str(error)
        raise DataError(problem, "scale them like the images that the network was trained on") from error
    return logits


def save(directory: Path) -> None:
    """Writes the SavedModel to `saved_model/`.

    It accepts images of each dtype in DTYPES, in their original shape or flattened, and computes the same
    bits as eager execution. The default signature has the dtype and shape of the data set.

    Args:
        directory: directory of a run, with `weights.npz` and `network.json`.
    """
    module, about = load(directory)
    shape, flat = (None, *about["shape"]), (None, module.params["w1"].shape[0])
    for dtype, each in itertools.product(DTYPES, dict.fromkeys([shape, flat])):
        module.__call__.get_concrete_function(tf.TensorSpec(each, dtype, "images"))
    default = module.__call__.get_concrete_function(tf.TensorSpec(shape, about["dtype"], "images"))
    tf.saved_model.save(module, str(directory / run_paths.SAVED_MODEL), signatures=default)
