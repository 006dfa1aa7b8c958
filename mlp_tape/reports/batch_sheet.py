"""A sheet of the images of a batch with their labels."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlp_tape.reports import prediction_plots, style
from mlp_tape.system import formatting

COLUMNS, MOST = 16, 256  # images in a row, and in all


def draw(path: Path, images: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> None:
    """Draws images in rows, each below its label.

    Args:
        path: path of the PNG file.
        images: [n, height, width] or, in color, [n, height, width, 3]; at most MOST are drawn.
        labels: classes, int [n].
        names: name of each class.
    """
    n = min(len(images), MOST)
    height, width = images.shape[1:3]
    rows = math.ceil(n / COLUMNS)
    down, right = 1.5 * height, 1.2 * width  # in one pair of axes: axes for each image take much longer
    figure = Figure(figsize=(10, max(1.0, 10 * rows * down / (COLUMNS * right))))
    axes = figure.subplots(gridspec_kw={"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.99})
    axes.set(xlim=(0, COLUMNS * right), ylim=(rows * down, 0))
    axes.set_axis_off()
    low, high = float(images.min()), float(images.max())
    for i in range(n):
        row, column = divmod(i, COLUMNS)
        x, y = column * right, row * down + 0.4 * height
        name = formatting.shorten(names[int(labels[i])], prediction_plots.LONGEST // 2)
        axes.text(x + width / 2, y - 0.05 * height, name, ha="center", va="bottom", fontsize=7)
        place = (x, x + width, y + height, y)
        image = prediction_plots.drawable(images[i])
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=place, interpolation="nearest")
    axes.set_aspect("auto")
    style.save(figure, path)
