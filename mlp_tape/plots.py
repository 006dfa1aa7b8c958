"""Pictures of a run: NumPy in, PNG out."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito's colours, safe for the colour-blind


def learning_curve(
    path: Path, losses: NDArray[Any], test_losses: list[float], accuracies: list[float]
) -> None:
    """Draws the loss of each step, smoothed too, and the test loss and accuracy of each epoch.

    Args:
        path: of the PNG.
        losses: [steps].
        test_losses: one an epoch.
        accuracies: one an epoch, 0 to 1.
    """
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True)
    ends = len(losses) // len(accuracies) * np.arange(1, len(accuracies) + 1) - 1
    top.plot(losses, color=GREY, linewidth=0.5, label="training, each step")
    window = max(1, min(100, len(losses) // 10))
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    top.plot(np.arange(len(smooth)) + (window - 1) / 2, smooth, color=BLUE, label=f"mean of {window} steps")
    top.plot(ends, test_losses, "o-", color=ORANGE, label="test")
    top.set(ylabel="loss")
    top.legend()
    bottom.plot(ends, 100 * np.asarray(accuracies), "o-", color=ORANGE)
    bottom.set(xlabel="step", ylabel="test accuracy (%)")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def confusion_matrix(path: Path, labels: NDArray[Any], predictions: NDArray[Any], n_classes: int) -> None:
    """Draws how often each class was taken for each other.

    Args:
        path: of the PNG.
        labels: [n], the true classes.
        predictions: [n].
        n_classes: the number of classes.
    """
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (labels, predictions), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    axes.set(xlabel="predicted class", ylabel="true class")
    if n_classes <= 20:
        axes.set(xticks=range(n_classes), yticks=range(n_classes))
        for (row, column), count in np.ndenumerate(counts):
            dark = share[row, column] > 0.5
            axes.text(
                column, row, f"{count}", ha="center", va="center", size=8, color="white" if dark else "black"
            )
    figure.savefig(path, dpi=100)
