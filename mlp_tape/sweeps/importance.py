"""The importance of each swept setting: how much the results of the jobs depend on it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_tape.reports.scales import is_wide

FEWEST = 6  # minimum number of jobs
TREES = 100
DRAWN = 2_000  # number of points at which the forest is evaluated


def importance(
    settings: Sequence[Mapping[str, Any]], values: Sequence[float | None], seed: int = 0
) -> dict[str, float] | None:
    """Returns the importance of each setting that differs between the jobs, highest first; the sum is 1.

    A random forest is fitted to the ranks of the results. The importance of a setting is the mean squared
    change of the forest's prediction when only this setting is drawn anew, for settings drawn independently
    of each other: the total effect of Sobol's decomposition of variance, in which an interaction counts for
    each setting that is part of it. Ranks make the numbers independent of the metric's scale, of its
    direction, and of how bad the worst jobs are. The numbers describe the range that was tried, and are
    uncertain for few jobs: a setting without effect has a small share, not 0.

    Source: Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance
    (ICML 2014), for the decomposition of a random forest; Saltelli et al., Variance based sensitivity
    analysis of model output (2010), doi:10.1016/j.cpc.2009.09.018, table 2 (f), for the estimate.

    Args:
        settings: settings of each finished job; one that a job lacks is None.
        values: result of each job; jobs without one (None, NaN or infinite) are left out.
        seed: seed of the forest and of the drawn points.

    Returns:
        None if nothing can be said: fewer than 6 jobs have a result, all results are equal, fewer than two
        settings differ, or the trees predict the jobs that they have not seen no better than the mean does.
    """
    known = [i for i, value in enumerate(values) if value is not None and math.isfinite(value)]
    results = np.array([values[i] for i in known], float)
    if len(known) < FEWEST or results.min() == results.max():
        return None
    keys = list(dict.fromkeys(key for i in known for key in settings[i]))
    columns = {key: _encode([settings[i].get(key) for i in known]) for key in keys}
    columns = {key: column for key, column in columns.items() if column.min() < column.max()}
    if len(columns) < 2:
        return None
    from scipy import stats
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(TREES, min_samples_leaf=2, oob_score=True, random_state=seed)
    forest.fit(np.stack(list(columns.values()), axis=1), stats.rankdata(results))
    if forest.oob_score_ <= 0:
        return None
    rng = np.random.default_rng(seed)
    first, second = ([_draw(column, rng) for column in columns.values()] for _ in range(2))
    at = np.stack(first, axis=1)  # [drawn, settings]
    before, effects = forest.predict(at), []
    for i, anew in enumerate(second):
        changed = at.copy()
        changed[:, i] = anew
        effects.append(float(np.square(forest.predict(changed) - before).mean()))
    total = sum(effects)
    if total == 0:
        return None
    shares = {key: effect / total for key, effect in zip(columns, effects, strict=True)}
    return dict(sorted(shares.items(), key=lambda share: -share[1]))


def _encode(values: Sequence[Any]) -> NDArray[np.float64]:
    """Encodes the values of a setting as numbers: on a log scale where wide, categories by their position.

    A number that is missing among others is placed below them.
    """
    numbers = [value for value in values if _is_number(value)]
    if not numbers or any(value is not None and not _is_number(value) for value in values):
        known = sorted({repr(value) for value in values})
        return np.array([known.index(repr(value)) for value in values], float)
    wide = min(numbers) > 0 and is_wide(numbers)
    x = np.array([np.nan if value is None else math.log(value) if wide else value for value in values], float)
    below = np.nanmin(x) - max(1.0, np.ptp(x[~np.isnan(x)]) / 4)
    return np.where(np.isnan(x), below, x)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _draw(column: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws from the values of a setting that were tried if they recur, else uniformly from their range."""
    tried = np.unique(column)
    if 2 * len(tried) <= len(column):
        return rng.choice(tried, DRAWN)
    return rng.uniform(tried[0], tried[-1], DRAWN)
