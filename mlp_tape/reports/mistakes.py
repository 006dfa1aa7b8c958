"""Which test images the network is most wrong about."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 40  # images of a plot


def worst(labels: NDArray[Any], scores: NDArray[Any]) -> NDArray[np.intp]:
    """Returns the misclassified images for which the predicted class leads the true one by the most.

    Args:
        labels: true classes, int [n].
        scores: logits, float [n, classes].

    Returns:
        Their indices, the worst first, at most MOST.
    """
    lead = scores.max(axis=1) - scores[np.arange(len(labels)), labels]
    found: NDArray[np.intp] = np.argsort(-lead, kind="stable")[:MOST]
    is_wrong: NDArray[np.bool_] = scores.argmax(axis=1)[found] != labels[found]
    return found[is_wrong]
