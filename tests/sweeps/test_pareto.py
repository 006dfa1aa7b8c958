"""The Pareto front is that of the definition."""

import math

from hypothesis import given
from hypothesis import strategies as st

from mlp_tape.sweeps import pareto

DIRECTIONS = st.sampled_from(["maximize", "minimize"])
COORDINATES = st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf, -math.inf, math.nan])


def dominates(one: list[float], other: list[float], directions: list[str]) -> bool:
    """Returns whether a point is at least as good as another in all objectives, and better in one."""
    better = [a > b if way == "maximize" else a < b for a, b, way in zip(one, other, directions, strict=True)]
    return any(better) and all(b or x == y for b, x, y in zip(better, one, other, strict=True))


@given(st.data(), st.lists(DIRECTIONS, min_size=1, max_size=4))
def test_front_has_the_points_that_no_other_dominates(data: st.DataObject, directions: list[str]) -> None:
    point = st.lists(COORDINATES, min_size=len(directions), max_size=len(directions))
    points = data.draw(st.lists(point, max_size=12))
    known = [point for point in points if not any(map(math.isnan, point))]
    expected = [
        i
        for i, point in enumerate(points)
        if point in known and not any(dominates(other, point, directions) for other in known)
    ]
    assert pareto.front(points, directions) == expected


def test_equal_points_are_all_on_the_front() -> None:
    points = [[0.9, 10.0], [0.8, 5.0], [0.9, 10.0], [0.7, 6.0]]
    assert pareto.front(points, ["maximize", "minimize"]) == [0, 1, 2]
