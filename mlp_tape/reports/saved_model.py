"""Export of the trained network as a TensorFlow SavedModel, from the files in the run's directory."""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from mlp_tape.storage import run_paths
from mlp_tape.tensors import network
from mlp_tape.tensors.activations import ACTIVATIONS
from mlp_tape.tensors.network import Params


class TapeModule(tf.Module):  # type: ignore[misc]
    """The network as a function of images, with its parameters.

    Args:
        params: parameters as returned by `init_params`.
        activation: a key of ACTIVATIONS.
        scale: divisor of the images.
    """

    def __init__(self, params: Params, activation: str, scale: float) -> None:
        super().__init__()
        self.params = params
        self.activation = ACTIVATIONS[activation]
        # With a constant, TensorFlow would multiply by the inverse, which changes the last bits.
        self.scale = tf.Variable(scale, trainable=False, name="scale")

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Computes the logits: unscaled images as in training, [n, ...] -> float32 [n, classes]."""
        x = tf.cast(images, tf.float32) / self.scale  # [n,28,28]
        x = tf.reshape(x, [-1, self.params["w1"].shape[0]])  # [n,28,28] -> [n,784]
        return network.forward(self.params, x, self.activation)  # [n,784] -> [n,10]


def save(directory: Path) -> None:
    """Writes the SavedModel to `saved_model/`.

    It accepts images in their original shape or flattened, and computes the same bits as eager execution.

    Args:
        directory: directory of a run, with `weights.npz` and `network.json`.
    """
    about = json.loads((directory / run_paths.NETWORK).read_bytes())
    with np.load(directory / run_paths.WEIGHTS, allow_pickle=False) as archive:
        params = network.as_params(dict(archive))
    module = TapeModule(params, about["activation"], about["scale"])
    shapes = {(None, *about["shape"]), (None, params["w1"].shape[0])}
    calls = {
        shape: module.__call__.get_concrete_function(tf.TensorSpec(shape, about["dtype"], "images"))
        for shape in sorted(shapes, key=len)
    }
    unflattened = calls[(None, *about["shape"])]
    tf.saved_model.save(module, str(directory / run_paths.SAVED_MODEL), signatures=unflattened)
