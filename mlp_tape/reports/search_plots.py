"""Plots of a search: its history, the importance of settings, parallel coordinates, the Pareto front."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlp_tape.reports import style
from mlp_tape.reports.scales import scale
from mlp_tape.reports.style import BLUE, COLOURS, GREY, ORANGE
from mlp_tape.reports.swept_jobs import Job, Metric, span
from mlp_tape.system import formatting

AXES = 8  # maximum number of settings in parallel coordinates
NAMED = 20  # maximum number of jobs of a front that are named
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
    edge = drawn.low if metric.maximize else drawn.high
    size = 6 if len(jobs) <= 100 else 4
    looks = (
        (pruned, "pruned", {"mec": GREY, "mfc": "none", "zorder": 2}),
        (finished, "finished", {"mec": BLUE, "mfc": BLUE, "zorder": 3, "alpha": 0.8}),
    )
    for group, name, look in looks:
        values = np.array([metric.factor * job.value if job.has_value else edge for job in group], float)
        x = np.array([places[id(job)] for job in group])
        inside = (drawn.low < values) & (values < drawn.high)
        if len(group):
            text = f"{name} ({len(group)})"
            axes.plot(x[inside], values[inside], "o", ms=size, label=text, **look)
        if not inside.all():
            marker, where = ("v", edge) if metric.maximize else ("^", edge)
            worse = f"{name}, worse than shown ({(~inside).sum()})"
            x = x[~inside]
            axes.plot(x, [where] * len(x), marker, ms=size, clip_on=False, label=worse, **look)
    if failed:
        x = [places[id(job)] for job in failed]
        text = f"failed ({len(failed)})"
        axes.plot(x, [edge] * len(x), "x", ms=7, mew=2, color=FAILED, clip_on=False, label=text, zorder=4)
    if finished:
        best_so_far = np.maximum.accumulate if metric.maximize else np.minimum.accumulate
        ends = [places[id(job)] for job in finished]
        best = best_so_far(metric.shown(finished))
        axes.step(
            [*ends, len(jobs)], [*best, best[-1]], where="post", color=ORANGE, label="best so far", zorder=1
        )
        _star(axes, places[id(metric.ranked(jobs)[0])], metric, metric.ranked(jobs)[0])
    axes.set(xlabel="jobs in the order of their end", ylabel=metric.label)
    axes.set_xlim(1 - 0.02 * len(jobs) - 0.3, len(jobs) * 1.02 + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper left", ncols=3, fontsize="small", frameon=False)
    style.save(figure, path)


def _star(axes: Axes, x: float, metric: Metric, best: Job) -> None:
    """Marks the best job."""
    y = metric.factor * (best.value or 0.0)
    text = f"best: job {best.number}, {metric.text(best)}"
    axes.plot([x], [y], "*", ms=15, mfc=ORANGE, mec="white", label=text, zorder=5)


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
    drawn = span(metric.shown(finished), metric.maximize)
    axis = [scale([job.settings.get(key) for job in shown]) for key in keys]
    heights = [*(each.at for each in axis), drawn.position(metric.shown(shown))]
    lines = np.stack([np.stack([np.full(len(shown), i), y], axis=1) for i, y in enumerate(heights)], axis=1)
    thin = {"colors": GREY, "linewidths": 0.5, "alpha": 0.5}
    axes.add_collection(LineCollection(list(lines[len(finished) :]), zorder=1, **thin))
    colours = matplotlib.colormaps["viridis"](1 - 0.95 * heights[-1][: len(finished)])
    many = {"linewidths": 1.5 if len(finished) <= 60 else 0.9, "alpha": 0.8}
    axes.add_collection(
        LineCollection(list(lines[: len(finished)][::-1]), colors=colours[::-1], zorder=2, **many)
    )
    if finished:
        label = f"best: job {finished[0].number}, {metric.text(finished[0])}"
        axes.plot(*lines[0].T, color=ORANGE, linewidth=3, zorder=3, label=label)
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    for i, each in enumerate(axis):
        for y, text in zip(each.ticks, each.labels, strict=True):
            axes.plot([i - 0.02, i], [y, y], color="black", linewidth=0.8, zorder=4)
            axes.text(i - 0.04, y, text, ha="right", va="center", fontsize="small", bbox=box, zorder=4)
    for i in range(len(heights)):
        axes.axvline(i, color="black", linewidth=0.8, zorder=4)
    value_axis = axes.twinx()
    drawn.set(value_axis)
    names = [_wrapped(key) for key in keys]
    axes.set_xticks(range(len(heights)), [*names, _wrapped(metric.label)])
    axes.set(xlim=(-0.6, len(keys)), ylim=(0, 1), yticks=[])
    axes.margins(y=0.05)
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
    every = figure.subplots(-(-len(pairs) // columns), columns, squeeze=False).flat
    dominated = [i for i in range(len(rows)) if i not in set(best)]
    for axes, (first, second) in zip(every, pairs, strict=False):
        for which, i in (("y", first), ("x", second)):
            span(rows[:, i], metrics[i].maximize).set(axes, which)
            better = "higher is better" if metrics[i].maximize else "lower is better"
            axes.set(**{f"{which}label": f"{metrics[i].label}, {better}"})
        x, y = rows[:, second], rows[:, first]
        axes.plot(x[dominated], y[dominated], "o", color=GREY, alpha=0.6, ms=5, label="other jobs")
        chosen = sorted(best, key=lambda i: x[i])
        if len(pairs) == 1:
            where = "steps-pre" if metrics[second].maximize else "steps-post"
            axes.plot(x[chosen], y[chosen], color=ORANGE, drawstyle=where, alpha=0.7)
        axes.plot(x[chosen], y[chosen], "o", color=ORANGE, ms=7, label="Pareto front")
        for i in chosen:
            axes.annotate(str(numbers[i]), (x[i], y[i]), xytext=(5, 5), textcoords="offset points")
        axes.grid(alpha=0.3)
    for axes in every:
        axes.set_axis_off()
    style.save(figure, path)
