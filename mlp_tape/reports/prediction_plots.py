"""Plots of predictions on the test images: confusion matrix, accuracy per class, and worst mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlp_tape.reports import mistakes, style
from mlp_tape.reports.style import BLUE, GREY
from mlp_tape.system import formatting

COLUMNS = 8  # of images in the plot of mistakes
ROWS = -(-mistakes.MOST // COLUMNS)
PREDICTED = ", predicted "
SHOWN = 20  # number of classes up to which each has a label
LONGEST = 24  # characters of the name of a class
ROOM = 50  # characters of all names along an axis
CAPTION = 20  # characters in the caption of an image


def confusion_matrix(
    path: Path, labels: NDArray[Any], predictions: NDArray[Any], names: Sequence[str]
) -> None:
    """Plots the confusion matrix.

    Args:
        path: path of the PNG file.
        labels: true classes, int [n].
        predictions: predicted classes, int [n].
        names: name of each class.
    """
    n_classes = len(names)
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (labels, predictions), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    margin = _margin(names)
    figure = Figure(figsize=(7 + margin, 6 + margin))
    left, bottom = (0.63 + margin) / (7 + margin), (0.54 + margin) / (6 + margin)
    axes = figure.subplots(gridspec_kw={"left": left, "right": 0.99, "bottom": bottom, "top": 0.97})
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    axes.set(xlabel="predicted class", ylabel="true class")
    if n_classes <= SHOWN:
        axes.set_yticks(range(n_classes), _short(names))
        axes.set_xticks(range(n_classes), _short(names), rotation=_rotation(names))
        for (row, column), count in np.ndenumerate(counts):
            dark = share[row, column] > 0.5
            axes.text(
                column, row, f"{count}", ha="center", va="center", size=8, color="white" if dark else "black"
            )
    style.save(figure, path)


def class_accuracies(
    path: Path, labels: NDArray[Any], predictions: NDArray[Any], names: Sequence[str]
) -> None:
    """Plots the accuracy of each class.

    Args:
        path: path of the PNG file.
        labels: true classes, int [n].
        predictions: predicted classes, int [n].
        names: name of each class.
    """
    right, n_classes, margin = labels == predictions, len(names), _margin(names)
    images = np.bincount(labels, minlength=n_classes)
    percent = 100 * np.bincount(labels[right], minlength=n_classes) / np.maximum(images, 1)
    height = 4.5 + margin
    figure = Figure(figsize=(8, height))
    bottom, top = (0.54 + margin) / height, 1 - 0.315 / height
    axes = figure.subplots(gridspec_kw={"left": 0.09, "right": 0.98, "bottom": bottom, "top": top})
    axes.bar(range(n_classes), percent, color=BLUE, width=0.8)
    axes.axhline(100 * right.mean(), color=GREY, linestyle="--")
    axes.set(xlabel="class", ylabel="test accuracy (%)", ylim=(0, 105))
    style.title(axes, f"dashed: {100 * right.mean():.2f} % overall")
    if n_classes <= SHOWN:
        axes.set_xticks(range(n_classes), _short(names), rotation=_rotation(names))
        for label, height in enumerate(percent):
            axes.text(label, height + 1, f"{height:.1f}", ha="center", size=8)
    style.save(figure, path)


def _short(names: Sequence[str]) -> list[str]:
    return [formatting.shorten(name, LONGEST) for name in names]


def _rotation(names: Sequence[str]) -> int:
    """Returns the angle at which the names of all classes have room along an axis, in degrees."""
    return 90 if len(names) * max(map(len, _short(names))) > ROOM else 0


def _margin(names: Sequence[str]) -> float:
    """Returns the additional space that names of classes need as labels of an axis, in inches."""
    longest = max(map(len, _short(names))) if len(names) <= SHOWN else 0
    return 0.08 * longest if longest > 2 else 0.0


def are_drawn(x: NDArray[Any]) -> bool:
    """Returns whether an array contains images that can be drawn: [n, height, width] or in color."""
    return x.ndim == 3 or (x.ndim == 4 and x.shape[-1] == 3)


def worst_mistakes(
    path: Path, images: NDArray[Any], labels: NDArray[Any], scores: NDArray[Any], names: Sequence[str]
) -> None:
    """Plots the images that `mistakes.worst` returns.

    Args:
        path: path of the PNG file.
        images: these images, in that order, [m, height, width] or, in color, [m, height, width, 3].
        labels: true classes, int [n].
        scores: logits, float [n, classes].
        names: name of each class.
    """
    names = [formatting.shorten(name, LONGEST // 2) for name in names]
    is_long = 2 * max(map(len, names)) + len(PREDICTED) > CAPTION
    predictions = scores.argmax(axis=1)
    worst = mistakes.worst(labels, scores)
    figure = Figure(figsize=(8, 6.4))
    axes = figure.subplots(gridspec_kw={"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.94})
    wrong = int(np.sum(predictions != labels))
    style.title(
        axes,
        f"{wrong:,} of {len(labels):,} test images are misclassified; worst first"
        + " (true class → predicted class)" * is_long,
    )
    axes.set_axis_off()
    _, height, width = images.shape[:3]
    gap = 0.46 if is_long else 0.23  # above an image, for its caption
    # In one pair of axes: axes for each image take much longer
    down, right = (1.12 + gap) * height, 1.2 * width
    axes.set(xlim=(0, COLUMNS * right), ylim=(ROWS * down, 0))
    for i, (number, image) in enumerate(zip(worst, images, strict=True)):
        y, x = (i // COLUMNS) * down + (gap + 0.08) * height, (i % COLUMNS + 0.08) * right
        place = (x, x + width, y + height, y)
        axes.imshow(drawable(image), cmap="gray_r", extent=place, aspect="auto")
        true, predicted = names[labels[number]], names[predictions[number]]
        caption = f"{true}\n→ {predicted}" if is_long else f"{true}{PREDICTED}{predicted}"
        axes.text(x + width / 2, y - 0.04 * height, caption, ha="center", va="bottom", fontsize=8)
    style.save(figure, path)


def drawable(image: NDArray[Any]) -> NDArray[Any]:
    """Returns an image in color with values from 0 to 1, if they are floats; a grey one as it is."""
    if image.ndim == 2 or image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    scaled: NDArray[Any] = (image - low) / ((high - low) or 1.0)
    return scaled
