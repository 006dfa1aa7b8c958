"""Statistics of a step: norms, ratios and histograms of its tensors."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from mlp_tape.tensors.optimizers import Updates
from mlp_tape.training.histograms import Histogram, histogram


def norm(tensor: tf.Tensor) -> float:
    """Returns the Euclidean norm of all values of a tensor."""
    with np.errstate(over="ignore"):  # a diverging run may overflow
        return float(np.linalg.norm(tensor.numpy()))


def norms(kind: str, tensors: Mapping[str, tf.Tensor]) -> dict[str, float]:
    """Returns the norm of each tensor, keyed `params/w1/norm`, ... for the kind `params`."""
    return {f"{kind}/{name}/norm": norm(tensor) for name, tensor in tensors.items()}


def ratios(params: Mapping[str, float], updates: Updates) -> dict[str, float]:
    """Returns the norm of each update divided by that of its parameter, unless the latter is 0.

    Args:
        params: norms of the parameters before the update, keyed `params/w1/norm`, ...
        updates: updates subtracted from the parameters.

    Returns:
        Ratios keyed `updates/w1/ratio`, ...
    """
    before = {name: params[f"params/{name}/norm"] for name in updates}
    return {
        f"updates/{name}/ratio": norm(updates[name]) / before[name] for name in updates if before[name] > 0
    }


def histograms(kind: str, tensors: Mapping[str, tf.Tensor]) -> dict[str, Histogram]:
    """Returns the histogram of each finite tensor, keyed `params/w1`, ... for the kind `params`.

    Tensors with values that are not finite are omitted; divergence is reported when the run ends.
    """
    found = {f"{kind}/{name}": histogram(tensor.numpy()) for name, tensor in tensors.items()}
    return {key: each for key, each in found.items() if each is not None}
