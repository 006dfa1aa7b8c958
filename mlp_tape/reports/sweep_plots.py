"""Plots of a sweep: the metric against each swept setting, or the best jobs in order."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlp_tape.reports import style
from mlp_tape.reports.scales import LABEL, TICKS, Scale, distinct, scale
from mlp_tape.reports.style import BLUE, GREY, ORANGE
from mlp_tape.reports.swept_jobs import Job, Metric, span
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
            of the job then; else, the mean of each value is shown.
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
    values, drawn = metric.shown(ranked), span(metric.shown(ranked), metric.maximize)
    drawn.set(every[0])
    size = 6 if len(ranked) <= CROWDED else 3
    for axes, key in zip(every, panels, strict=False):
        found = scale([job.settings.get(key, job.number) for job in ranked + pruned])
        x, others = np.split(found.at, [len(ranked)])
        y = np.clip(values, drawn.low, drawn.high)
        if searched:
            numbers = [job.number for job in ranked]
            points = axes.scatter(x, y, size**2, numbers, cmap="viridis_r", alpha=0.8)
        else:
            axes.plot(x, y, "o", color=BLUE, alpha=0.7, ms=size)
            _means(axes, key, found.is_numeric, x, values)
        below = np.clip(metric.shown(pruned), drawn.low, drawn.high)
        axes.scatter(others, below, 16, facecolors="none", edgecolors=GREY, zorder=0)
        if ranked:
            axes.scatter(x[:1], y[:1], 200, ORANGE, "*", edgecolors="white", zorder=5)
        axes.set_xticks(found.ticks, found.labels, **_rotation(found))
        axes.set(xlabel=formatting.shorten(key, 2 * LABEL), ylabel=metric.label, xlim=(-0.06, 1.06))
        axes.yaxis.set_tick_params(labelleft=True)
        axes.grid(alpha=0.3)
    if searched and ranked:
        figure.colorbar(points, ax=every, label="number of the job", fraction=0.03)
    style.save(figure, path)


def _means(axes: Axes, key: str, is_numeric: bool, x: NDArray[Any], values: NDArray[Any]) -> None:
    """Draws the mean over the jobs with the same value of a setting."""
    each = np.unique(x)
    means = [values[x == value].mean() for value in each]
    if key == "seed":  # has no order in which the metric could change
        axes.axhline(values.mean(), color=ORANGE, label="mean", zorder=3)
    elif len(each) < len(x):
        axes.plot(each, means, "-" if is_numeric else "_", color=ORANGE, ms=20, label="mean", zorder=0)
    elif is_numeric:
        axes.plot(each, means, "-", color=ORANGE, zorder=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


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
    room = 42  # characters next to each other
    gaps = np.diff(found.ticks)
    widths = [(len(one) + len(other)) / 2 + 2 for one, other in pairwise(found.labels)]
    close = any(gap * room < width for gap, width in zip(gaps, widths, strict=True))
    return {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if close else {}
