"""Plots of a sweep: the metric against each swept setting, or the best jobs in order."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlp_tape.reports import style
from mlp_tape.reports.scales import LABEL, TICKS, Scale, distinct, scale
from mlp_tape.reports.style import BLUE, GREY, ORANGE
from mlp_tape.reports.swept_jobs import Job, Metric, Span, span
from mlp_tape.system import formatting

PER_ROW = 3  # maximum number of panels next to each other
CROWDED = 200  # number of jobs above which points are small
PANELS = 12  # maximum number of settings
MOST = 30  # maximum number of jobs in the plot of the best jobs


def is_readable(swept: Mapping[str, Sequence[Any]]) -> bool:
    """Returns whether the values of all settings that are not numbers can be labelled on an axis."""
    return all(_is_numeric(values) or len(distinct(values)) <= TICKS for values in swept.values())


def accuracies(path: Path, swept: Mapping[str, Sequence[Any]], accuracy: Sequence[float], what: str) -> None:
    """Plots the accuracy of the jobs against each swept setting (`slices`).

    Args:
        path: path of the PNG file.
        swept: for each swept setting, its value in each job.
        accuracy: accuracy of each job, 0 to 1.
        what: name of the metric, such as `test accuracy`.
    """
    jobs = [Job(i, {key: swept[key][i] for key in swept}, value) for i, value in enumerate(accuracy)]
    slices(path, jobs, Metric(what), list(swept))


def slices(
    path: Path, jobs: Sequence[Job], metric: Metric, order: Sequence[str] = (), searched: bool = False
) -> None:
    """Plots the metric against each swept setting.

    Args:
        path: path of the PNG file.
        jobs: the jobs; those without a value are left out.
        metric: the metric by which they are compared.
        order: settings, most important first; all of the jobs if it is empty. At most 12 are shown.
        searched: whether jobs were chosen by the results of earlier ones. Points are coloured by the number
            of the job then; else, the median of each value is shown.
    """
    ranked = metric.ranked(jobs)
    pruned = [job for job in jobs if job.state == "pruned" and job.has_value]
    keys = list(order or dict.fromkeys(key for job in jobs for key in job.settings))
    panels = keys[:PANELS] or ["job"]
    columns, rows = min(PER_ROW, len(panels)), -(-len(panels) // PER_ROW)
    figure = Figure(figsize=(max(5.0, 4.0 * columns), 4.0 * rows), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    values, drawn = metric.shown(ranked), span(metric.shown(ranked or pruned), metric.maximize)
    drawn.set(every[0])
    size = 40 if len(ranked) <= CROWDED else 12
    numbers = np.array([job.number for job in ranked] or [0])
    shades = ScalarMappable(Normalize(numbers.min(), numbers.max()), "viridis_r")
    filled = {"c": shades.to_rgba(numbers) if searched else [BLUE] * len(ranked), "alpha": 0.7, "s": size}
    hollow = {"facecolors": "none", "edgecolors": GREY, "s": 16, "zorder": 0.5}
    for axes, key in zip(every, panels, strict=False):
        found = scale([job.settings.get(key, job.number) for job in ranked + pruned])
        x, others = np.split(found.at, [len(ranked)])
        _points(axes, others, metric.shown(pruned), drawn, hollow, f"pruned ({len(pruned)})")
        _points(axes, x, values, drawn, filled, f"finished ({len(ranked)})")
        if ranked and not searched:
            _medians(axes, key, found.is_numeric, x, values)
        if ranked:
            label = metric.about_best(ranked[0])
            axes.plot(x[:1], values[:1], "*", ms=15, mfc=ORANGE, mec="white", label=label, zorder=5)
        axes.set_xticks(found.ticks, found.labels, **_rotation(found))
        axes.set(xlabel=formatting.shorten(key, 2 * LABEL), ylabel=metric.label, xlim=(-0.06, 1.06))
        axes.yaxis.set_tick_params(labelleft=True)
        axes.grid(alpha=0.3)
    if searched and ranked:
        figure.colorbar(shades, ax=every, label="number of the job", fraction=0.03)
    style.legend(figure, 2 * columns)
    style.save(figure, path)


def _points(
    axes: Axes, x: NDArray[Any], values: NDArray[Any], drawn: Span, look: dict[str, Any], label: str
) -> None:
    """Draws points, as arrows at the edge where they are worse than what is shown."""
    inside = drawn.has(values)
    for which, y, marker in ((inside, values, "o"), (~inside, np.full(len(x), drawn.edge), drawn.arrow)):
        if which.any():
            one_each = {"c": np.asarray(look["c"])[which]} if "c" in look else {}
            text = label if marker == "o" else f"{label.split()[0]}, worse than shown ({which.sum()})"
            axes.scatter(x[which], y[which], marker=marker, label=text, clip_on=False, **look | one_each)


def _medians(axes: Axes, key: str, is_numeric: bool, x: NDArray[Any], values: NDArray[Any]) -> None:
    """Draws the median over the jobs with the same value of a setting; jobs that diverged do not move it."""
    each = np.unique(x)
    medians = [np.median(values[x == value]) for value in each]
    if key == "seed":  # has no order in which the metric could change
        axes.axhline(np.median(values), color=ORANGE, label="median", zorder=3)
    elif 2 * len(each) <= len(x):
        line = "-" if is_numeric else "_"
        axes.plot(each, medians, line, color=ORANGE, ms=20, mew=2, label="median", zorder=0)
    elif is_numeric and len(each) <= TICKS:
        axes.plot(each, medians, "-", color=ORANGE, zorder=0)


def ranking(path: Path, jobs: Sequence[tuple[str, float]], what: str) -> None:
    """Plots the accuracy of the best jobs in order, each with its name.

    Args:
        path: path of the PNG file.
        jobs: name and accuracy, 0 to 1, of each job, best first.
        what: name of the metric, such as `test accuracy`.
    """
    shown = jobs[:MOST]
    figure = Figure(figsize=(10, 1.2 + 0.25 * len(shown)), layout="constrained")
    axes = figure.subplots()
    y = range(len(shown))
    axes.plot([100 * value for _, value in shown], y, "o", color=BLUE)
    axes.set_yticks(y, [formatting.shorten(name, 4 * LABEL) for name, _ in shown], fontsize="small")
    axes.set(xlabel=f"{what} (%)", ylim=(len(shown) - 0.5, -0.5))
    if len(shown) < len(jobs):
        axes.set_title(
            f"best {len(shown)} of {formatting.count(len(jobs), 'finished job')}", fontsize="medium"
        )
    axes.grid(alpha=0.3)
    style.save(figure, path)


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _rotation(found: Scale) -> dict[str, Any]:
    """Returns the arguments that slant tick labels which would otherwise overlap."""
    room = 34  # characters next to each other
    gaps = np.diff(found.ticks)
    widths = [(len(one) + len(other)) / 2 + 2 for one, other in pairwise(found.labels)]
    close = any(gap * room < width for gap, width in zip(gaps, widths, strict=True))
    return {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if close else {}
