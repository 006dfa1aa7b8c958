"""Plots of the parameters: weights of the first layer as images, and histograms over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlp_tape.reports import style
from mlp_tape.training.histograms import Histogram

UNITS = 40  # maximum number of units in the plot of the first layer
ROWS = 100  # number of rows in a plot of histograms
SHOWN = 0.99  # central fraction of the values that determines the plotted range; outliers are cut off


def first_layer(path: Path, before: NDArray[Any], after: NDArray[Any], shape: tuple[int, int]) -> None:
    """Plots the weights of units of the first layer, and how training changed them.

    The units are those whose weights changed most, in descending order of the change.

    Args:
        path: path of the PNG file.
        before: w1 before the first step, float32 [height * width, units].
        after: w1 after the last step, of the same shape.
        shape: height and width of the images.
    """
    change = after - before
    order = np.argsort(-np.linalg.norm(change, axis=0), kind="stable")[:UNITS]
    figure = Figure(figsize=(8, 9.6))
    margins = {"left": 0.01, "right": 0.9, "bottom": 0.02, "top": 0.96, "hspace": 0.1}
    panels = figure.subplots(2, gridspec_kw=margins)
    titles = (
        f"w1 after training, the {len(order)} units that changed most",
        "their change since initialization",
    )
    for axes, weights, title in zip(panels, (after, change), titles, strict=True):
        tiles = _tiled(weights[:, order], shape)
        most = float(np.nanmax(np.abs(tiles))) or 1.0
        image = axes.imshow(tiles, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        style.title(axes, title)
        axes.set_axis_off()
        figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, label="weight")
    style.save(figure, path)


def _tiled(weights: NDArray[Any], shape: tuple[int, int], columns: int = 8) -> NDArray[Any]:
    """Arranges the columns of a matrix as images in a grid, separated by NaN."""
    height, width = shape
    n = weights.shape[1]
    rows = -(-n // columns)
    tiles = np.full((rows * columns, height + 1, width + 1), np.nan, np.float32)
    tiles[:n, :height, :width] = weights.T.reshape(n, height, width)
    return tiles.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2).reshape(rows * (height + 1), -1)


def histograms(path: Path, times: Sequence[tuple[int, dict[str, Histogram]]]) -> None:
    """Plots the distribution of the values of each parameter and its gradient over time.

    Args:
        path: path of the PNG file.
        times: global step and histograms, keyed `params/w1` (before the step), `grads/w1`, ...
    """
    names = [key.removeprefix("params/") for key in times[0][1] if key.startswith("params/")][:12]
    figure = Figure(figsize=(8, 0.8 + 1.7 * len(names)))
    inch = 1 / figure.get_figheight()
    margins = {"left": 0.13, "right": 0.98, "bottom": 0.5 * inch, "top": 1 - 0.55 * inch}
    grid = figure.subplots(
        len(names), 2, squeeze=False, sharex=True, gridspec_kw=margins | {"wspace": 0.25, "hspace": 0.25}
    )
    for row, name in zip(grid, names, strict=True):
        for axes, kind, outside in ((row[0], "params", 0.0), (row[1], "grads", 0.1)):
            _spread(axes, [(step, found.get(f"{kind}/{name}")) for step, found in times], outside)
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useOffset=False)
            axes.tick_params(labelsize=8)
            axes.locator_params(nbins=5)  # each tick takes a millisecond to draw
        row[0].set_ylabel(name)
    for axes, title in zip(
        grid[0], ("values of the parameter", "values of its gradient, central 99 %"), strict=True
    ):
        style.title(axes, title, above=16)  # above the exponent of the axis
    for axes in grid[-1]:
        axes.set_xlabel("step")
    style.save(figure, path)


def _spread(axes: Any, times: Sequence[tuple[int, Histogram | None]], outside: float) -> None:
    """Plots the distribution of one tensor: one column per histogram, darker where there are more values.

    Args:
        axes: matplotlib axes.
        times: global step and histogram, or None.
        outside: fraction of the histograms, 0 to 1, that may exceed the plotted range at either end, since
            the first gradients can be much larger than the others.
    """
    there = [(step, found) for step, found in times if found]
    if not there:
        axes.set_axis_off()
        return
    low = float(np.quantile([found.quantile((1 - SHOWN) / 2) for _, found in there], outside))
    high = float(np.quantile([found.quantile((1 + SHOWN) / 2) for _, found in there], 1 - outside))
    if low == high:
        low, high = low - 1e-3, high + 1e-3
    edges = np.linspace(low, high, ROWS + 1)
    share = np.stack([found.density(edges) for _, found in there], axis=1)  # [rows, times]
    share /= np.maximum(share.max(axis=0), 1e-12)  # the fullest row of each column is the darkest
    steps = [step for step, _ in there]
    last = steps[-1] + (steps[-1] - steps[-2] if len(steps) > 1 else 1)
    axes.pcolormesh([*steps, last], edges, np.sqrt(share), cmap="Blues", vmin=0, vmax=1, rasterized=True)
