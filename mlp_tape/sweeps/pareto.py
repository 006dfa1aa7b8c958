"""The Pareto front: the jobs that no other job is better than in every objective."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Direction = Literal["maximize", "minimize"]


def front(values: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Returns the indices of the rows that no other row dominates, in their order.

    A row dominates another one if it is at least as good in every objective, and better in one. Rows that are
    equal do not dominate each other. A row that contains NaN is not part of the front.

    Args:
        values: for each job, its value of each objective.
        directions: for each objective, whether higher (`maximize`) or lower values are better.
    """
    signs = [1.0 if direction == "maximize" else -1.0 for direction in directions]
    x = np.asarray(values, float).reshape(-1, len(signs)) * signs
    known = np.flatnonzero(~np.isnan(x).any(axis=1))
    others = x[known]
    return [int(i) for i in known if not ((others >= x[i]).all(axis=1) & (others > x[i]).any(axis=1)).any()]
