"""Plots of a search: its history, the importance of settings, parallel coordinates, the Pareto front."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mlp_tape.reports import style
from mlp_tape.reports.scales import scale
from mlp_tape.reports.style import BLUE, COLOURS, GREY, ORANGE
from mlp_tape.reports.swept_jobs import Job, Metric, span

AXES = 8  # maximum number of settings in parallel coordinates
FAILED = COLOURS[3]


def history(path: Path, jobs: Sequence[Job], metric: Metric) -> None:
    """Plots the value of each job and the best value so far.

    Values that are far worse than the others are shown at the edge of the plot, as are failed jobs.

    Args:
        path: path of the PNG file.
        jobs: the jobs, in the order in which they ended.
        metric: the metric by which they are compared.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    places = {id(job): i for i, job in enumerate(jobs, 1)}
    finished = [job for job in jobs if job.state == "finished" and job.has_value]
    pruned = [job for job in jobs if job.state == "pruned"]
    failed = [job for job in jobs if job.state != "pruned" and not job.has_value]
    drawn = span(metric.shown(finished or [job for job in pruned if job.has_value]), metric.maximize)
    drawn.set(axes)
    size = 6 if len(jobs) <= 100 else 4
    looks: tuple[tuple[list[Job], str, dict[str, Any]], ...] = (
        (pruned, "pruned", {"mec": GREY, "mfc": "none", "zorder": 2}),
        (finished, "finished", {"mec": BLUE, "mfc": BLUE, "zorder": 3, "alpha": 0.8}),
    )
    for group, name, look in looks:
        values = np.where([job.has_value for job in group], metric.shown(group), np.nan)
        x = np.array([places[id(job)] for job in group])
        inside = drawn.has(values)
        if group:
            axes.plot(x[inside], values[inside], "o", ms=size, label=f"{name} ({len(group)})", **look)
        if not inside.all():
            worse, x = f"{name}, worse than shown ({(~inside).sum()})", x[~inside]
            axes.plot(x, [drawn.edge] * len(x), drawn.arrow, ms=size, clip_on=False, label=worse, **look)
    if failed:
        at, text = [places[id(job)] for job in failed], f"failed ({len(failed)})"
        edge = [drawn.edge] * len(at)
        axes.plot(at, edge, "x", ms=7, mew=2, color=FAILED, clip_on=False, label=text, zorder=4)
    if finished:
        best_so_far = np.maximum.accumulate if metric.maximize else np.minimum.accumulate
        ends = [places[id(job)] for job in finished]
        best = best_so_far(metric.shown(finished))
        axes.step(
            [*ends, len(jobs)], [*best, best[-1]], where="post", color=ORANGE, label="best so far", zorder=1
        )
        first = metric.ranked(jobs)[0]
        x, text = np.array([places[id(first)]]), metric.about_best(first)
        axes.plot(x, metric.shown([first]), "*", ms=15, mfc=ORANGE, mec="white", label=text, zorder=5)
    axes.set(xlabel="jobs in the order of their end", ylabel=metric.label)
    axes.set_xlim(1 - 0.02 * len(jobs) - 0.3, len(jobs) * 1.02 + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    style.legend(figure, 3)
    style.save(figure, path)


def importance(path: Path, shares: Mapping[str, float], metric: Metric) -> None:
    """Plots the importance of the swept settings as bars, longest first.

    Args:
        path: path of the PNG file.
        shares: importance of each setting; the sum is 1.
        metric: the metric by which jobs are compared.
    """
    ordered = sorted(shares.items(), key=lambda share: -share[1])
    longest = max(len(key) for key in shares)
    figure = Figure(figsize=(5 + 0.085 * longest, 1.2 + 0.3 * len(shares)), layout="constrained")
    axes = figure.subplots()
    percent = [100 * share for _, share in ordered]
    bars = axes.barh(range(len(ordered)), percent, color=BLUE, height=0.7)
    axes.bar_label(bars, [f"{each:.0f} %" if each >= 1 else "< 1 %" for each in percent], padding=3)
    axes.set_yticks(range(len(ordered)), [key for key, _ in ordered])
    axes.set(ylim=(len(ordered) - 0.4, -0.6), xlim=(0, 1.15 * max(percent)))
    axes.set_xlabel(f"importance for {metric.name} (%)")
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    style.save(figure, path)


def parallel_coordinates(path: Path, jobs: Sequence[Job], metric: Metric, order: Sequence[str] = ()) -> None:
    """Plots each job as a line through the values of its settings, with the metric as the last axis.

    Finished jobs are coloured by their value, the best one on top; pruned ones are thin and grey.

    Args:
        path: path of the PNG file.
        jobs: the jobs; those without a value are left out.
        metric: the metric by which they are compared.
        order: settings, most important first; all of the first job if it is empty. At most 8 are shown.
    """
    finished = metric.ranked(jobs)
    pruned = [job for job in jobs if job.state == "pruned" and job.has_value]
    shown = finished + pruned
    keys = list(order or dict.fromkeys(key for job in jobs for key in job.settings))[:AXES]
    figure = Figure(figsize=(max(6.0, 1.7 * len(keys) + 2.4), 5.5), layout="constrained")
    axes = figure.subplots()
    drawn = span(metric.shown(finished or pruned), metric.maximize)
    axis = [scale([job.settings.get(key) for job in shown]) for key in keys]
    heights = [*(each.at for each in axis), drawn.position(metric.shown(shown))]
    lines = np.stack([np.stack([np.full(len(shown), i), y], axis=1) for i, y in enumerate(heights)], axis=1)
    thin = {
        "colors": GREY,
        "linewidths": 0.8 if len(pruned) <= 60 else 0.5,
        "alpha": 0.6,
        "label": f"pruned ({len(pruned)})",
    }
    if pruned:
        axes.add_collection(LineCollection(list(lines[len(finished) :]), zorder=1, **thin))
    badness = 1 - heights[-1] if metric.maximize else heights[-1]
    colours = matplotlib.colormaps["viridis"](0.95 * badness[: len(finished)])
    many = {"linewidths": 1.5 if len(finished) <= 60 else 0.9, "alpha": 0.8}
    axes.add_collection(
        LineCollection(list(lines[: len(finished)][::-1]), colors=colours[::-1], zorder=2, **many)
    )
    if finished:
        label = metric.about_best(finished[0])
        axes.plot(*lines[0].T, color=ORANGE, linewidth=3, zorder=3, label=label, clip_on=False)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    for i, each in enumerate(axis):
        for y, text in zip(each.ticks, each.labels, strict=True):
            axes.plot([i - 0.02, i], [y, y], color="black", linewidth=0.8, zorder=4)
            axes.text(i - 0.04, y, text, ha="right", va="center", fontsize="small", bbox=box, zorder=4)
    for i in range(len(heights)):
        axes.axvline(i, color="black", linewidth=0.8, zorder=4, clip_on=False)
    value_axis = axes.twinx()
    drawn.set(value_axis)
    for spines in (axes.spines, value_axis.spines):
        spines[:].set_visible(False)
    names = [_wrapped(key) for key in keys]
    axes.set_xticks(range(len(heights)), [*names, _wrapped(metric.label)])
    axes.set(xlim=(-0.45, len(keys)), ylim=(0, 1), yticks=[])
    axes.tick_params(axis="x", length=0, pad=12)  # clear of the labels at the lower end of the axes
    style.legend(figure, 3)
    style.save(figure, path)


def _wrapped(name: str, width: int = 16) -> str:
    """Breaks a name after dots, underscores and blanks, so that its lines are short."""
    lines = [""]
    for part in name.replace(".", ".\0").replace("_", "_\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def front(
    path: Path,
    numbers: Sequence[int],
    values: Sequence[Sequence[float]],
    metrics: Sequence[Metric],
    best: Sequence[int],
) -> None:
    """Plots the Pareto front of the jobs: one plot for two objectives, a plot of each pair for more.

    The jobs of the front are labelled with their numbers where these do not overlap.

    Args:
        path: path of the PNG file.
        numbers: number of each job.
        values: for each job, its finite value of each objective.
        metrics: the objectives.
        best: indices of the jobs that form the front.
    """
    rows = np.array(values, float).reshape(-1, len(metrics)) * [metric.factor for metric in metrics]
    pairs = list(itertools.combinations(range(len(metrics)), 2))
    columns = min(3, len(pairs))
    size = (8, 6) if len(pairs) == 1 else (4.4 * columns, 4 * -(-len(pairs) // columns))
    figure = Figure(figsize=size, layout="constrained")
    every = list(figure.subplots(-(-len(pairs) // columns), columns, squeeze=False).flat)
    for axes in every[len(pairs) :]:
        axes.set_axis_off()
    dominated = sorted(set(range(len(rows))) - set(best))
    drawn = [span(rows[:, i], metric.maximize, best) for i, metric in enumerate(metrics)]
    longest = max((len(str(numbers[i])) for i in best), default=0)
    width, height = np.array([0.025 * (longest + 1), 0.06]) / (2 if len(pairs) == 1 else 1)  # of a label
    for axes, (first, second) in zip(every, pairs, strict=False):
        axis: tuple[tuple[Literal["x", "y"], int], ...] = (("y", first), ("x", second))
        for which, i in axis:
            drawn[i].set(axes, which)
            better = "higher is better" if metrics[i].maximize else "lower is better"
            axes.set(**{f"{which}label": f"{metrics[i].label}, {better}"})
        x, y = rows[:, second], rows[:, first]
        others = f"dominated ({len(dominated)})"
        axes.plot(x[dominated], y[dominated], "o", color=GREY, alpha=0.6, ms=5, label=others)
        chosen = sorted(best, key=lambda i: x[i])
        if len(pairs) == 1:
            steps = "steps-pre" if metrics[second].maximize else "steps-post"
            axes.plot(x[chosen], y[chosen], color=ORANGE, drawstyle=steps, alpha=0.7)
        axes.plot(x[chosen], y[chosen], "o", color=ORANGE, ms=7, label=f"Pareto front ({len(best)})")
        where = np.stack([drawn[second].position(x[chosen]), drawn[first].position(y[chosen])], axis=1)
        up, right = metrics[first].maximize, metrics[second].maximize
        text = {
            "xytext": (5 if right else -5, 5 if up else -5),
            "ha": "left" if right else "right",
            "va": "bottom" if up else "top",
        }
        for i in _apart(where, (width, height)):
            job = chosen[i]
            axes.annotate(str(numbers[job]), (x[job], y[job]), textcoords="offset points", **text)
        axes.grid(alpha=0.3)
    style.legend(figure, 2)
    style.save(figure, path)


def _apart(points: NDArray[np.float64], size: tuple[float, float]) -> list[int]:
    """Returns the indices of points whose labels of a size do not overlap, both ends of the front first."""
    chosen: list[int] = []
    for i in dict.fromkeys([0, len(points) - 1, *range(len(points))]):
        if all((np.abs(points[i] - points[j]) >= size).any() for j in chosen):
            chosen.append(i)
    return chosen
