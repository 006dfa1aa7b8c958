"""What is measured of a step: norms, ratios and histograms of its tensors."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from mlp_tape.tensors.optimizers import Updates
from mlp_tape.training.histograms import Histogram, histogram


def norm(tensor: tf.Tensor) -> float:
    """The square root of the sum of all squares."""
    with np.errstate(over="ignore"):  # of a run that diverges
        return float(np.linalg.norm(tensor.numpy()))


def norms(kind: str, tensors: Mapping[str, tf.Tensor]) -> dict[str, float]:
    """The norm of each tensor, by `params/w1/norm` where the kind is `params`."""
    return {f"{kind}/{name}/norm": norm(tensor) for name, tensor in tensors.items()}


def ratios(params: Mapping[str, float], updates: Updates) -> dict[str, float]:
    """The norms of the updates over those of the parameters; a parameter of zeros has no ratio.

    Args:
        params: `params/w1/norm`, ... before the update.
        updates: what is subtracted.

    Returns:
        By `updates/w1/ratio`, ...
    """
    before = {name: params[f"params/{name}/norm"] for name in updates}
    return {
        f"updates/{name}/ratio": norm(updates[name]) / before[name] for name in updates if before[name] > 0
    }


def histograms(kind: str, tensors: Mapping[str, tf.Tensor]) -> dict[str, Histogram]:
    """Those of finite tensors, by `params/w1`, ...: of others, the end of the run will tell."""
    found = {f"{kind}/{name}": histogram(tensor.numpy()) for name, tensor in tensors.items()}
    return {key: each for key, each in found.items() if each is not None}
