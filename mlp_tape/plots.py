"""Pictures of a run: NumPy in, PNG out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

Point = tuple[int, float]

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito's colours, safe for the colour-blind


def thinned(rows: Iterable[Point], n: int, most: int = 10_000) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Means of every k values, so that there are at most `most`; memory does not grow with n.

    Args:
        rows: step and value, one for each step from 0 to n - 1; some may be missing.
        n: how many steps there are.
        most: how many means, at the most.

    Returns:
        The steps in the middle of each mean, the means, and k.
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
    """Draws the loss of each step, smoothed too, and the test loss and accuracy of each epoch.

    Args:
        path: of the PNG.
        training: step and loss.
        n: how many steps there are.
        test_losses: step and loss, one an epoch.
        accuracies: step and accuracy, 0 to 1, one an epoch.
    """
    steps, losses, k = thinned(training, n)
    figure = Figure(figsize=(8, 6))  # with fixed margins: to find the best takes as long as to draw
    margins = {"left": 0.1, "right": 0.98, "bottom": 0.09, "top": 0.98, "hspace": 0.06}
    top, bottom = figure.subplots(2, sharex=True, gridspec_kw=margins)
    each = "each step" if k == 1 else f"mean of {k} steps"
    top.plot(steps, losses, color=GREY, linewidth=0.5, label=f"training, {each}")
    window = max(1, min(100, len(losses) // 10))
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    middle = np.convolve(steps, np.ones(window) / window, mode="valid")
    top.plot(middle, smooth, color=BLUE, label=f"mean of {window * k} steps")
    top.plot(
        [step for step, _ in test_losses], [loss for _, loss in test_losses], "o-", color=ORANGE, label="test"
    )
    top.set(ylabel="loss")
    top.legend()
    bottom.plot(
        [step for step, _ in accuracies], [100 * value for _, value in accuracies], "o-", color=ORANGE
    )
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
    figure = Figure(figsize=(7, 6))
    axes = figure.subplots(gridspec_kw={"left": 0.09, "right": 0.99, "bottom": 0.09, "top": 0.97})
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
