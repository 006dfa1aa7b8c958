"""Plots of training over time: the learning curve, each layer, and a comparison of several runs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from mlp_tape.reports import style
from mlp_tape.reports.style import BLUE, COLOURS, GREY, ORANGE, Point
from mlp_tape.reports.swept_jobs import Job, Metric, padded
from mlp_tape.system import formatting
from mlp_tape.system.formatting import count

MOST = 12  # maximum number of curves in one plot
LABEL = 90  # maximum number of characters of a run's name in the legend


def thinned(rows: Iterable[Point], n: int, most: int = 10_000) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Averages values over windows of k steps, so that at most `most` remain; memory does not grow with n.

    Args:
        rows: step and value, one for each step from 0 to n - 1; some may be missing.
        n: number of steps.
        most: maximum number of means.

    Returns:
        The step in the middle of each window, the means, and k. Windows without values are omitted.
    """
    k = max(1, -(-n // most))
    sums, counts = np.zeros(-(-n // k)), np.zeros(-(-n // k))
    for step, value in rows:
        sums[step // k] += value
        counts[step // k] += 1
    there = np.flatnonzero(counts)
    return there * k + (k - 1) / 2, sums[there] / counts[there], k


def learning_curve(
    path: Path, training: Iterable[Point], n: int, test_losses: list[Point], accuracies: list[Point]
) -> None:
    """Plots the loss of each step, raw and smoothed, and the test loss and accuracy of each epoch.

    Args:
        path: path of the PNG file.
        training: step and training loss.
        n: number of steps.
        test_losses: step and test loss, one per epoch.
        accuracies: step and test accuracy, 0 to 1, one per epoch.
    """
    steps, losses, k = thinned(training, n)
    figure = Figure(figsize=(8, 6))  # fixed margins: a layout engine takes as long as drawing
    margins = {"left": 0.1, "right": 0.98, "bottom": 0.09, "top": 0.98, "hspace": 0.06}
    top, bottom = figure.subplots(2, sharex=True, gridspec_kw=margins)
    each = "each step" if k == 1 else f"mean of {count(k, 'step')}"
    top.plot(steps, losses, color=GREY, linewidth=0.5, label=f"training, {each}")
    window = max(1, min(100, len(losses) // 10))
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    middle = np.convolve(steps, np.ones(window) / window, mode="valid")
    top.plot(middle, smooth, color=BLUE, label=f"mean of {count(window * k, 'step')}")
    top.plot(
        [step for step, _ in test_losses], [loss for _, loss in test_losses], "o-", color=ORANGE, label="test"
    )
    top.set(ylabel="loss")
    top.legend(loc="upper right")  # the best place among 10,000 points takes longer to find
    bottom.plot(
        [step for step, _ in accuracies], [100 * value for _, value in accuracies], "o-", color=ORANGE
    )
    bottom.set(xlabel="step", ylabel="test accuracy (%)")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    style.save(figure, path)


def layers(path: Path, dead: Mapping[str, Sequence[Point]], ratios: Mapping[str, Sequence[Point]]) -> None:
    """Plots the fraction of dead units and the relative size of the updates over time.

    Args:
        path: path of the PNG file.
        dead: for each hidden layer, step and fraction of its units that are 0 for every test image.
        ratios: for each parameter, step and norm of the update divided by the norm of the parameter.
    """
    figure = Figure(figsize=(8, 6))
    margins = {"left": 0.1, "right": 0.98, "bottom": 0.09, "top": 0.96, "hspace": 0.12}
    top, bottom = figure.subplots(2, sharex=True, gridspec_kw=margins)
    for axes, lines, scale in ((top, dead, 100.0), (bottom, ratios, 1.0)):
        for name, points in lines.items():
            layer = int(re.sub(r"\D", "", name) or 1)
            line = "--" if name.startswith("b") else "-"
            steps, values = [step for step, _ in points], [scale * value for _, value in points]
            marker = "." if len(points) <= 60 else ""
            axes.plot(steps, values, line, marker=marker, color=COLOURS[(layer - 1) % 8], label=name)
        axes.grid(alpha=0.3)
    top.set(ylabel="dead units (% of the layer)", ylim=(-2, 102))
    style.title(top, "dead: 0 for every test image")
    bottom.set(xlabel="step", ylabel="norm of update / norm of parameter", yscale="log")
    bottom.yaxis.set_minor_locator(NullLocator())  # each tick takes a millisecond
    bottom.axhline(1e-3, color=GREY, linewidth=1, linestyle=":")
    for axes, lines in ((top, dead), (bottom, ratios)):
        if lines:
            axes.legend(ncols=min(4, len(lines)))
    style.save(figure, path)


def overlay(
    path: Path, runs: Sequence[tuple[str, list[Point], list[Point], int]], what: str = "test accuracy"
) -> None:
    """Plots the training loss and an accuracy of several runs in the same axes.

    Args:
        path: path of the PNG file.
        runs: for each run, name, steps and training losses, steps and accuracies (0 to 1), and number of
            steps.
        what: name of the accuracy.
    """
    names = [formatting.shorten(name, LABEL) for name, *_ in runs]
    is_long = max(map(len, names), default=0) > LABEL // 3
    below = 0.25 * len(runs) if is_long else 0.0  # a legend beside the axes would leave them no room
    figure = Figure(figsize=(9, 6 + below), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(runs)))
    for colour, name, (_, losses, tested, steps) in zip(colours, names, runs, strict=True):
        top.plot(*thinned(losses, steps, most=100)[:2], color=colour, linewidth=1)
        where, how_good = zip(*tested, strict=True) if tested else ((), ())
        bottom.plot(where, [100 * value for value in how_good], "o-", color=colour, markersize=3, label=name)
    top.set(ylabel="training loss")
    top.set_yscale("log")
    bottom.set(xlabel="step", ylabel=f"{what} (%)")
    figure.legend(loc="outside lower left" if is_long else "outside right upper", fontsize="small")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    style.save(figure, path)


def curves(path: Path, jobs: Sequence[Job], metric: Metric, unit: str = "step") -> None:
    """Plots the curves of all jobs of a sweep: the best highlighted, the pruned ones thin and grey.

    Accuracies have an axis on which the error is logarithmic if the errors differ by more than a factor of 5,
    so that both the pruned jobs and the differences of the best ones can be seen. Positive metrics of which
    lower is better have a logarithmic axis.

    Args:
        path: path of the PNG file.
        jobs: the jobs; those without a curve are left out.
        metric: the metric of the curves.
        unit: what the curves are plotted against, `step` or `epoch`.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    drawn = [job for job in jobs if job.curve]
    best = metric.ranked(drawn)[:1]
    for state, colour, marker in (
        ("pruned", GREY, "|"),
        ("failed", COLOURS[3], "x"),
        ("finished", BLUE, "."),
    ):
        group = [job for job in drawn if job.state == state]
        if not group:
            continue
        lines = [[(x, metric.factor * y) for x, y in job.curve] for job in group]
        width = 1.2 if state == "finished" and len(group) <= 30 else 0.6
        alpha = 0.6 if len(group) <= 100 else 0.4
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, alpha=alpha, zorder=2))
        ends = [line[-1] for line in lines]
        axes.plot(*zip(*ends, strict=True), marker, color=colour, ms=4, zorder=3)
        axes.plot([], [], f"{marker}-", color=colour, label=f"{state} ({len(group)})")
    for job in best:
        x, y = np.array(job.curve, float).T
        text = metric.about_best(job)
        (line,) = axes.plot(
            x, metric.factor * y, "o-", color=ORANGE, linewidth=2.5, ms=4, label=text, zorder=5
        )
        line.set_clip_on(metric.factor == 1)  # 100 % is at the edge
    _set_limits(axes, [metric.factor * np.array([y for _, y in job.curve], float) for job in drawn], metric)
    axes.set(xlabel=unit, ylabel=metric.label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    style.legend(figure, 4)
    style.save(figure, path)


def _set_limits(axes: Axes, lines: Sequence[NDArray[np.float64]], metric: Metric) -> None:
    """Sets scale and limits of the values of curves."""
    values = np.concatenate([*lines, np.zeros(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high = values.min(), values.max()
    if metric.factor > 1 and 100 - low > 5 * (100 - high):
        _set_log_error(axes, 100 - values)
    elif not metric.maximize and low > 0:
        first = np.median([line[np.isfinite(line)][0] for line in lines if np.isfinite(line).any()])
        axes.set_yscale("log")
        axes.set_ylim(low / 1.1, 1.1 * min(high, 3 * max(first, low)))  # some jobs may diverge
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    else:
        axes.set_ylim(*padded(low, high))


def _set_log_error(axes: Axes, errors: NDArray[np.float64]) -> None:
    """Sets the scale of accuracies (%) such that their errors, 100 minus accuracy, are logarithmic."""
    smallest, largest = errors[errors > 0].min(), 1.1 * errors.max()
    least = smallest / (1.2 if errors.min() > 0 else 2)  # where 100 % is drawn, which has no logarithm

    def height(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(-np.log10(np.maximum(100 - accuracy, least)))

    axes.set_yscale("function", functions=(height, lambda y: 100 - 10**-y))
    axes.set_ylim(100 - largest, 100 - least)
    apart, ticks = np.log10(largest / least) / 16, [100.0] if errors.min() == 0 else []
    for digits in ((1, 2, 5), (1.5, 3, 7)):
        for error in (digit * 10.0**power for power in range(-3, 2) for digit in digits):
            near = [abs(height(np.array(100 - error)) - height(np.array(tick))) < apart for tick in ticks]
            if least <= error <= largest and not any(near):
                ticks.append(100 - error)
    axes.set_yticks(ticks, [f"{tick:.8g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
