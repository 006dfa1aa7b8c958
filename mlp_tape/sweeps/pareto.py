"""The Pareto front: the points than which no other is better in all objectives."""

from collections.abc import Sequence

import numpy as np


def front(values: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Returns the indices of the points that no other point dominates.

    Args:
        values: coordinates of each point, one per objective.
        directions: `maximize` or `minimize` for each objective.
    """
    if not values:
        return []
    costs = np.asarray(values) * [-1 if each == "maximize" else 1 for each in directions]
    better = (costs[:, None] <= costs[None]).all(2) & (costs[:, None] < costs[None]).any(2)
    return np.flatnonzero(~better.any(0)).tolist()
