"""Plots of predictions on the test images: confusion matrix, accuracy per class, and worst mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlp_tape.reports import style
from mlp_tape.reports.style import BLUE, GREY

ROWS, COLUMNS = 5, 8  # of images in the plot of mistakes


def confusion_matrix(path: Path, labels: NDArray[Any], predictions: NDArray[Any], n_classes: int) -> None:
    """Plots the confusion matrix.

    Args:
        path: path of the PNG file.
        labels: true classes, int [n].
        predictions: predicted classes, int [n].
        n_classes: number of classes.
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
    style.save(figure, path)


def class_accuracies(path: Path, labels: NDArray[Any], predictions: NDArray[Any], n_classes: int) -> None:
    """Plots the accuracy of each class.

    Args:
        path: path of the PNG file.
        labels: true classes, int [n].
        predictions: predicted classes, int [n].
        n_classes: number of classes.
    """
    right = labels == predictions
    images = np.bincount(labels, minlength=n_classes)
    percent = 100 * np.bincount(labels[right], minlength=n_classes) / np.maximum(images, 1)
    figure = Figure(figsize=(8, 4.5))
    axes = figure.subplots(gridspec_kw={"left": 0.09, "right": 0.98, "bottom": 0.12, "top": 0.93})
    axes.bar(range(n_classes), percent, color=BLUE, width=0.8)
    axes.axhline(100 * right.mean(), color=GREY, linestyle="--")
    axes.set(xlabel="class", ylabel="test accuracy (%)", ylim=(0, 105))
    axes.set_title(f"dashed: {100 * right.mean():.2f} % overall", fontsize="medium")
    if n_classes <= 20:
        axes.set_xticks(range(n_classes))
        for label, height in enumerate(percent):
            axes.text(label, height + 1, f"{height:.1f}", ha="center", size=8)
    style.save(figure, path)


def worst_mistakes(path: Path, images: NDArray[Any], labels: NDArray[Any], scores: NDArray[Any]) -> None:
    """Plots the misclassified images for which the predicted class leads the true one by the most.

    Args:
        path: path of the PNG file.
        images: [n, height, width].
        labels: true classes, int [n].
        scores: logits, float [n, classes].
    """
    predictions = scores.argmax(axis=1)
    lead = scores.max(axis=1) - scores[np.arange(len(labels)), labels]
    worst = np.argsort(-lead, kind="stable")[: ROWS * COLUMNS]
    worst = worst[predictions[worst] != labels[worst]]
    figure = Figure(figsize=(8, 6.4))
    axes = figure.subplots(gridspec_kw={"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.94})
    wrong = int(np.sum(predictions != labels))
    axes.set_title(
        f"{wrong:,} of {len(labels):,} test images are misclassified; worst first",
        fontsize="medium",
    )
    axes.set_axis_off()
    _, height, width = images.shape
    down, right = 1.35 * height, 1.2 * width  # in one pair of axes: axes for each image take much longer
    axes.set(xlim=(0, COLUMNS * right), ylim=(ROWS * down, 0))
    for place, number in enumerate(worst):
        y, x = (place // COLUMNS + 0.23) * down, (place % COLUMNS + 0.08) * right
        axes.imshow(images[number], cmap="gray_r", extent=(x, x + width, y + height, y), aspect="auto")
        caption = f"{labels[number]}, predicted {predictions[number]}"
        axes.text(x + width / 2, y - 0.04 * height, caption, ha="center", va="bottom", fontsize=8)
    style.save(figure, path)
