"""The Pareto front: the points than which no other is better in all objectives."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def front(values: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Returns the indices of the points that no other point dominates, in their order.

    A point dominates another one if it is at least as good in every objective, and better in one, so that
    equal points do not dominate each other. A point with a NaN is not part of the front.

    Args:
        values: coordinates of each point, one per objective.
        directions: `maximize` or `minimize` for each objective.
    """
    signs = [1.0 if each == "maximize" else -1.0 for each in directions]
    points = np.asarray(values, float).reshape(-1, len(signs)) * signs
    known = np.flatnonzero(~np.isnan(points).any(axis=1))
    others = points[known]

    def is_dominated(point: NDArray[np.float64]) -> bool:
        return bool(((others >= point).all(axis=1) & (others > point).any(axis=1)).any())

    return [int(i) for i in known if not is_dominated(points[i])]
