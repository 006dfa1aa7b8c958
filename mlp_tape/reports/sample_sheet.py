"""A sheet of sample images, a row for each class."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mlp_tape.data.datasets import Dataset
from mlp_tape.reports import prediction_plots, style
from mlp_tape.system import formatting

ROWS, COLUMNS = 20, 10  # classes, and images of each


def draw(path: Path, dataset: Dataset) -> None:
    """Draws the first training images of each class.

    Args:
        path: path of the PNG file.
        dataset: data set of images, of which `prediction_plots.are_drawn` is true.
    """
    shown = min(dataset.n_classes, ROWS)
    height, width = dataset.x_train.shape[1:3]
    figure = Figure(figsize=(8, 0.5 + 0.62 * shown * height / width))
    axes = figure.subplots(gridspec_kw={"left": 0.14, "right": 0.99, "bottom": 0.01, "top": 0.99})
    down, right = 1.1 * height, 1.1 * width  # in one pair of axes: axes for each image take much longer
    axes.set(xlim=(0, COLUMNS * right), ylim=(shown * down, 0))
    axes.set_axis_off()
    low, high = float(dataset.ranges["train"].low), float(dataset.ranges["train"].high)
    for row in range(shown):
        name = formatting.shorten(dataset.class_names[row], prediction_plots.LONGEST // 2)
        axes.text(-0.1 * width, (row + 0.5) * down, name, ha="right", va="center", fontsize=9)
        for column, number in enumerate(np.flatnonzero(dataset.y_train == row)[:COLUMNS]):
            x, y = column * right, row * down
            image = prediction_plots.drawable(dataset.x_train[number])
            place = (x, x + width, y + height, y)
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, extent=place, interpolation="nearest")
    axes.set_aspect("auto")
    style.save(figure, path)
