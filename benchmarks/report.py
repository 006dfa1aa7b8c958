"""Report of the measurements, as tables in Markdown and as plots."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from benchmarks import commands, epoch
from benchmarks.loops import ours
from benchmarks.measure import Series

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # colour-blind-safe palette of Okabe and Ito
TITLES = {
    "epoch": "One epoch on full MNIST, 784-256-128-10, batches of 128, the last one of 96",
    "whole": "Ten epochs on full MNIST, from process start to exit",
    "without": "Commands without training, and the smoke experiment",
    "growth": "Scaling",
}
X_LABELS = {
    "batch size": "images per step",
    "width": "width of both hidden layers",
    "depth": "hidden layers of 256",
    "jobs": "jobs of a sweep",
    "rows": "metric rows of a run",
}
Y_LABELS = {
    "batch size": "s per epoch of 60,000 images",
    "width": "s per epoch of 12,800 images",
    "depth": "s per epoch of 12,800 images",
    "jobs": "s, whole command",
    "rows": "s, whole command",
}


def markdown(results: Mapping[str, Any]) -> str:
    """Returns all measured sections, each with the machine and the date."""
    lines = ["# Results of `python -m benchmarks`", ""]
    for name, title in TITLES.items():
        if name not in results:
            continue
        about, found = results[name]["machine"], results[name]["found"]
        lines += [f"## {title}", "", f"{about['date']}, {about['processor']}, {about['packages']}.", ""]
        if name == "growth":
            for what, points in found.items():
                lines += [*_table({f"{x} {X_LABELS[what]}": Series(**s) for x, s in points.items()}), ""]
            continue
        series = {key: Series(**value) for key, value in found.items()}
        lines += [*_table(series), "", *_ratios(name, series), ""]
        if name == "whole":
            seconds, mib = results[name]["first"]
            lines += [f"The first run, with nothing cached: {seconds:.2f} s, {mib:,.0f} MiB.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(series: Mapping[str, Series]) -> Iterator[str]:
    yield "| | median | all rounds | peak memory |"
    yield "|---|---|---|---|"
    for name, each in series.items():
        if each.why_not:
            yield f"| {name} | skipped: {each.why_not} | | |"
            continue
        label = f"{name} (OpenBLAS kernel {each.kernel})" if each.kernel else name
        rounds = f"{min(each.seconds):.3f} to {max(each.seconds):.3f}, {len(each.seconds)} rounds"
        yield f"| {label} | {each.median:.3f} s | {rounds} | {each.memory:,.0f} MiB |"


def _ratios(section: str, series: Mapping[str, Series]) -> Iterator[str]:
    """Yields ratios of the medians of mlp_tape and other variants."""

    def over(ours: str, other: str, memory: bool = False) -> str:
        a, b = series[ours], series[other]
        ratio = a.memory / b.memory if memory else a.median / b.median
        return f"- {ours} over {other}{', peak memory' if memory else ''}: **{ratio:.2f}**"

    measured = {name: each for name, each in series.items() if not each.why_not}
    if section == "epoch":
        peers = [name for name in measured if name not in (epoch.FLOOR, epoch.PRODUCTS, *ours.VARIANTS)]
        keras = [name for name in peers if name.startswith("Keras")]
        for group in (peers, keras):
            yield over("mlp_tape, compiled", min(group, key=lambda name: measured[name].median))
        yield over("mlp_tape, compiled", "TensorFlow, eager tutorial loop")
        yield over("mlp_tape, compiled", epoch.FLOOR)
        yield over("mlp_tape, compiled", epoch.PRODUCTS)
        yield over(epoch.PRODUCTS, epoch.FLOOR)
    if section == "whole":
        yield over(commands.OURS, commands.TUTORIAL)
        yield over(commands.OURS, commands.KERAS)
        yield over(commands.OURS, commands.TUTORIAL, memory=True)
    if section == "without":
        for name in measured:
            if name != commands.IMPORT:
                yield over(name, commands.IMPORT)


def bars(path: Path, found: Mapping[str, Any]) -> None:
    """Plots the median time of an epoch for each variant, with the range over all rounds."""
    series = {name: Series(**value) for name, value in found.items() if not value["why_not"]}
    names = sorted(series, key=lambda name: series[name].median, reverse=True)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(names):
        each = series[name]
        colour = (
            BLUE if name.startswith("mlp_tape") else GREY if name in (epoch.FLOOR, epoch.PRODUCTS) else ORANGE
        )
        error = [[each.median - min(each.seconds)], [max(each.seconds) - each.median]]
        axes.barh(y, each.median, color=colour, xerr=error)
        axes.text(max(each.seconds), y, f"  {each.median:.2f} s", va="center", size=8)
    axes.margins(x=0.1)
    axes.set(yticks=range(len(names)), xlabel="s, median and range", title="One epoch on full MNIST")
    axes.set_yticklabels(names, size=8)
    figure.savefig(path, dpi=100)


def curves(path: Path, found: Mapping[str, Any]) -> None:
    """Plots time, on a logarithmic axis, and memory against each varied quantity."""
    figure = Figure(figsize=(16, 6), layout="constrained")
    panels = figure.subplots(2, len(found))
    for column, (what, points) in enumerate(found.items()):
        x = [float(name) for name in points]
        series = [Series(**value) for value in points.values()]
        top, bottom = panels[0][column], panels[1][column]
        top.loglog(x, [each.median for each in series], "o-", color=BLUE)
        bottom.semilogx(x, [each.memory for each in series], "o-", color=ORANGE)
        top.set(title=what, ylabel=Y_LABELS[what])
        bottom.set(xlabel=X_LABELS[what], ylabel="peak memory, MiB")
        bottom.set_ylim(0, 1.15 * max(each.memory for each in series))
        for axis in (top.xaxis, top.yaxis, bottom.xaxis):
            _number_ticks(axis)
        for axes in (top, bottom):
            axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def _number_ticks(axis: Axis) -> None:
    """Labels a logarithmic axis with numbers such as 0.2 or 10k, about five of them."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    digits = (1,) if decades > 1.7 else (1, 2, 5) if decades > 1 else range(1, 10)
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e4 else EngFormatter(sep="")(value))
    axis.set_minor_locator(NullLocator())
