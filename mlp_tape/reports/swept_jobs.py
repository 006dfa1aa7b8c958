"""What the plots of a sweep show: its jobs, the metric they are compared by, and the range that matters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mlp_tape.reports.style import Point
from mlp_tape.system import formatting


@dataclass(frozen=True)
class Job:
    """A job of a sweep or a search.

    Attributes:
        number: number of the job.
        settings: value of each swept setting.
        value: its metric, accuracies from 0 to 1; of a pruned job, the last one; None if there is none.
        state: how it ended.
        curve: step or epoch and metric, one for each evaluation.
        label: its name in a legend; `job` and the number if it is empty.
    """

    number: int
    settings: Mapping[str, Any]
    value: float | None
    state: Literal["finished", "pruned", "failed"] = "finished"
    curve: Sequence[Point] = field(default=(), repr=False)
    label: str = ""

    @property
    def has_value(self) -> bool:
        """Whether it did not fail and has a value that can be drawn."""
        return self.state != "failed" and self.value is not None and math.isfinite(self.value)


def averaged(jobs: Sequence[Job], over: str) -> list[Job]:
    """Returns a job for each setting, with the means of those that differ only in `over`, such as a seed.

    It has the number of the first of them. It is finished only if as many of its jobs are as of any other
    setting: means over fewer seeds are less certain.

    Args:
        jobs: the jobs.
        over: key of the setting over which results are averaged.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(repr([item for item in job.settings.items() if item[0] != over]), []).append(job)
    finished = [[job for job in same if job.state == "finished"] for same in groups.values()]
    most = max(map(len, finished), default=0)
    return [
        _mean(same, done if done and len(done) == most else [], over)
        for same, done in zip(groups.values(), finished, strict=True)
    ]


def _mean(same: Sequence[Job], finished: Sequence[Job], over: str) -> Job:
    """Returns the mean of the jobs of a setting; `finished` is empty if some are missing."""
    pruned = [job for job in same if job.state == "pruned"]
    state: Literal["finished", "pruned", "failed"] = (
        "finished" if finished else "pruned" if pruned else "failed"
    )
    known = finished or pruned
    values = [job.value for job in known if job.value is not None]
    curves = [dict(job.curve) for job in known if job.curve]
    shared = [x for x in curves[0] if all(x in curve for curve in curves)] if curves else []
    return Job(
        same[0].number,
        {key: value for key, value in same[0].settings.items() if key != over},
        float(np.mean(values)) if values else None,
        state,
        [(x, float(np.mean([curve[x] for curve in curves]))) for x in shared],
        f"mean of {formatting.count(len(known), 'job')} from job {same[0].number}",
    )


@dataclass(frozen=True)
class Metric:
    """The metric by which jobs are compared.

    Attributes:
        name: such as `validation accuracy`; accuracies are shown in percent.
        maximize: whether higher is better.
    """

    name: str
    maximize: bool = True

    @property
    def label(self) -> str:
        """The label of an axis."""
        return f"{self.name} (%)" if self.factor > 1 else self.name

    @property
    def factor(self) -> float:
        """The factor from values to what is shown."""
        return 100.0 if self.name.endswith("accuracy") else 1.0

    def shown(self, jobs: Sequence[Job]) -> NDArray[np.float64]:
        """Returns the values of jobs that have one, as they are shown."""
        return self.factor * np.array([job.value for job in jobs], float)

    def about_best(self, job: Job) -> str:
        """Returns the entry of the best job in a legend."""
        value = self.factor * (job.value or 0.0)
        text = f"{value:.2f} %" if self.factor > 1 else f"{value:.4g}"
        return f"best: {job.label or f'job {job.number}'}, {text}"

    def ranked(self, jobs: Sequence[Job]) -> list[Job]:
        """Returns the finished jobs that have a value, best first; of equal ones, the first remains first."""
        there = [job for job in jobs if job.state == "finished" and job.has_value]
        return sorted(there, key=lambda job: job.value or 0.0, reverse=self.maximize)


@dataclass(frozen=True)
class Span:
    """The range of an axis, from which values that are far worse than the others are left out.

    Attributes:
        low: lower limit.
        high: upper limit.
        is_log: whether the axis is logarithmic.
        maximize: whether higher is better.
    """

    low: float
    high: float
    is_log: bool
    maximize: bool

    @property
    def edge(self) -> float:
        """The limit at which values are marked that are worse than it."""
        return self.low if self.maximize else self.high

    @property
    def arrow(self) -> str:
        """The marker of such values."""
        return "v" if self.maximize else "^"

    def has(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Returns which values lie within the limits."""
        return (self.low <= values) & (values <= self.high)

    def set(self, axes: Axes, which: Literal["x", "y"] = "y") -> None:
        """Sets scale and limits of an axis."""
        axes.set(
            **{f"{which}scale": "log" if self.is_log else "linear", f"{which}lim": (self.low, self.high)}
        )
        if self.is_log:
            getattr(axes, f"{which}axis").set_major_formatter("{x:g}")

    def position(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns where values lie between the limits: from 0 to 1, also for those beyond."""
        low, high, x = self.low, self.high, np.clip(values, self.low, self.high)
        return np.asarray(np.log(x / low) / np.log(high / low) if self.is_log else (x - low) / (high - low))


def span(values: NDArray[np.float64], maximize: bool, keep: Sequence[int] = ()) -> Span:
    """Returns the range in which the values differ in an interesting way.

    It reaches five times as far from the best value as the best third of the values does, or the best half
    or two thirds if those are equal, and contains at least 40 % of the values. Nothing
    is left out unless the range becomes at most 0.4 of the full one. A metric of which lower is better is
    shown on a log scale if it is positive and spans more than a factor of 30 within that range.

    Args:
        values: finite values, as they are shown.
        maximize: whether higher is better.
        keep: indices of values that are not left out.
    """
    for is_log in (not maximize and min(values, default=0) > 0, False):
        x = np.log10(values) if is_log else np.asarray(values, float)
        low, high = _limits(x if maximize else -x, list(keep))
        low, high = (low, high) if maximize else (-high, -low)
        if is_log and high - low > math.log10(30):
            return Span(10**low, 10**high, True, maximize)
    return Span(low, high, False, maximize)


def _limits(x: NDArray[np.float64], keep: list[int]) -> tuple[float, float]:
    """Returns the limits of values of which higher is better, with a margin."""
    if not len(x):
        return 0.0, 1.0
    best, worst = x.max(), x.min()
    spreads = best - np.quantile(x, (2 / 3, 1 / 2, 1 / 3))  # the first is 0 if a third is equally good
    spread = next((each for each in spreads if each > 0), 0.0)
    zoomed = min(best - 5 * spread, np.quantile(x, 0.6), *x[keep])
    if best - worst > 2.5 * (best - zoomed) > 0:
        worst = x[x >= zoomed].min()
    return padded(float(worst), float(best))


def padded(low: float, high: float) -> tuple[float, float]:
    """Returns the limits of an axis on which values from `low` to `high` have a margin."""
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin
