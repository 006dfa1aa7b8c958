"""What a run prints about its data before training, and about rare classes after it."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from mlp_tape.config.settings import Settings
from mlp_tape.data import labels, splits
from mlp_tape.data.datasets import Dataset
from mlp_tape.data.features import Range
from mlp_tape.system.formatting import count
from mlp_tape.training.classification import ByClass

SHOWN = 5  # classes with the lowest recall


def of_data(settings: Settings, dataset: Dataset, layer_sizes: list[int]) -> Iterator[str]:
    """Yields a description of the data, as the original program prints it, and of the network.

    Args:
        settings: settings of the run.
        dataset: its data, with the validation images.
        layer_sizes: width of each layer, from the input to the number of classes.
    """
    yield from of_arrays(dataset)
    if dataset.is_own:
        rows = labels.listed(dataset.class_names, dataset.y_train)
        yield f"       {count(dataset.n_classes, 'class')}: {rows}"
    b = min(settings.batch_size, len(dataset.x_train))
    yield f"batch  {(b, *dataset.x_train.shape[1:])} {(b,)}"
    weights = sum((d_in + 1) * d_out for d_in, d_out in itertools.pairwise(layer_sizes))
    yield f"layers {' -> '.join(map(str, layer_sizes))}, {count(weights, 'parameter')}"


def of_arrays(dataset: Dataset) -> Iterator[str]:
    """Yields how data are understood: number of images, shapes, dtypes, ranges and scale."""
    x, y = dataset.x_train, dataset.y_train
    low, high = dataset.span
    validation = f", {len(dataset.y_validation):,} to validate" if len(dataset.y_validation) else ""
    images = f"{count(len(x), 'image')} to train on{validation}, {len(dataset.x_test):,} to test"
    yield f"data   {dataset.name}, {images}"
    yield from (f"       {remark}" for remark in dataset.remarks)
    yield f"x      {x.shape} float32, min {_number(low)}, max {_number(high)}"
    yield f"       {raw_ranges(dataset.ranges)}; {dataset.scale}"
    yield f"y      {y.shape} {y.dtype}, min {y.min()}, max {y.max()}"


def raw_ranges(ranges: Mapping[str, Range]) -> str:
    """Returns the raw dtype and range of each part, such as `train uint8 from 0 to 255, test ...`."""
    return ", ".join(f"{part} {raw}" for part, raw in ranges.items())


def _number(value: float) -> str:
    """Formats a number as 0.0 or 1.0, and with more digits if it has any."""
    return f"{value:.1f}" if value == round(value, 1) and abs(value) < 1e6 else f"{value:.6g}"


def doubts(settings: Settings, dataset: Dataset) -> Iterator[str]:
    """Yields what may be wrong with the data, and with their order in this run."""
    yield from dataset.doubts
    if settings.shuffle is False and splits.is_sorted(dataset.y_train):
        yield (
            "the training images are sorted by class, so that most batches contain a single class: "
            "type shuffle=true"
        )


def rare_classes(dataset: Dataset, found: ByClass) -> Iterator[str]:
    """Yields what accuracy hides, if some classes are rare.

    Args:
        dataset: data of the run.
        found: results on the test images.
    """
    if not found.is_imbalanced:
        return
    names = dataset.class_names
    yield (
        f"              always answering {names[int(found.rows.argmax())]} would score "
        f"{found.majority_accuracy:.4f}; balanced accuracy {found.balanced_accuracy:.4f}, "
        f"macro F1 {found.macro_f1:.4f}"
    )
    present = np.flatnonzero(found.rows)
    worst = sorted(present.tolist(), key=lambda k: found.recall[k])[:SHOWN]
    listed = (f"{names[k]} {found.recall[k]:.4f} of {found.rows[k]:,}" for k in worst)
    yield f"              lowest recall: {', '.join(listed)}"
