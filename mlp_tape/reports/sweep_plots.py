"""The plot of a sweep: accuracy against each swept setting, or the best jobs in order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from mlp_tape.reports import style
from mlp_tape.reports.style import BLUE, ORANGE
from mlp_tape.system import formatting

PER_ROW = 3  # maximum number of panels next to each other
CROWDED = 200  # number of jobs above which points are small
TICKS = 10  # maximum number of values of a setting that are labelled
LABEL = 24  # maximum number of characters of a value on an axis
MOST = 30  # maximum number of jobs in the plot of the best jobs


def is_readable(swept: Mapping[str, Sequence[Any]]) -> bool:
    """Returns whether the values of all settings that are not numbers can be labelled on an axis."""
    return all(_is_numeric(values) or len(_distinct(values)) <= TICKS for values in swept.values())


def accuracies(path: Path, swept: Mapping[str, Sequence[Any]], accuracy: Sequence[float], what: str) -> None:
    """Plots the accuracy of the jobs against each swept setting.

    Args:
        path: path of the PNG file.
        swept: for each swept setting, its value in each job.
        accuracy: accuracy of each job, 0 to 1.
        what: name of the metric, such as `test accuracy`.
    """
    panels = list(swept.items()) or [("job", list(range(len(accuracy))))]
    columns, rows = min(PER_ROW, len(panels)), -(-len(panels) // PER_ROW)
    figure = Figure(figsize=(max(5.0, 4.0 * columns), 4.0 * rows), layout="constrained")
    percent = 100 * np.asarray(accuracy)
    every = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    for axes, (key, values) in zip(every, panels, strict=False):
        numeric = _is_numeric(values)
        x = _set_scale(axes, values) if numeric else _set_categories(axes, values)
        axes.plot(x, percent, "o", color=BLUE, alpha=0.7, ms=6 if len(x) <= CROWDED else 3)
        each = np.unique(x)
        means = [percent[x == value].mean() for value in each]
        if key == "seed":  # has no order in which accuracy could change
            axes.axhline(percent.mean(), color=ORANGE, label="mean", zorder=3)
        elif len(each) < len(x):
            axes.plot(each, means, "-" if numeric else "_", color=ORANGE, ms=20, label="mean", zorder=0)
        elif numeric:
            axes.plot(each, means, "-", color=ORANGE, zorder=0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        axes.set(xlabel=formatting.shorten(key, 2 * LABEL), ylabel=f"{what} (%)")
        axes.yaxis.set_tick_params(labelleft=True)
        axes.grid(alpha=0.3)
    style.save(figure, path)


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


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Returns the values, each once; they may be lists."""
    return list({repr(value): value for value in values}.values())


def _set_scale(axes: Axes, values: Sequence[float]) -> NDArray[Any]:
    """Sets the scale of a numeric setting, with ticks at its values if they are few; returns the positions.

    Ticks whose labels would overlap others are left out.
    """
    x = np.asarray(values, float)
    logarithmic = x.min() > 0 and x.max() >= 8 * x.min()
    if logarithmic:
        axes.set_xscale("log")
    ticks = sorted(_distinct(values))
    if len(ticks) <= TICKS:
        at = np.log(ticks) if logarithmic else np.asarray(ticks, float)
        width, shown = at[-1] - at[0], [0]
        for i in range(1, len(at)):
            if at[i] - at[shown[-1]] >= width / 16:
                shown.append(i)
        close = bool((np.diff(at[shown]) < width / 6).any())
        texts = formatting.column(ticks)
        axes.set_xticks([ticks[i] for i in shown], [texts[i] for i in shown], **_rotation(close))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return x


def _set_categories(axes: Axes, values: Sequence[Any]) -> NDArray[Any]:
    """Labels the axis with the values of a setting that are not numbers; returns the positions."""
    distinct = _distinct(values)
    names = [formatting.shorten(text, LABEL) for text in formatting.column(distinct)]
    close = max(map(len, names)) * (len(names) - 1) > LABEL
    axes.set_xticks(range(len(names)), names, **_rotation(close))
    axes.margins(x=0.2)
    known = [repr(value) for value in distinct]
    return np.asarray([known.index(repr(value)) for value in values], float)


def _rotation(close: bool) -> dict[str, Any]:
    """Returns the arguments that slant tick labels which would otherwise overlap."""
    return {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if close else {}
