"""Files that a run writes to its directory: settings, weights, the description of the model, plots."""

import collections
import csv
import io
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from mlp_tape.config.settings import Settings, to_dict
from mlp_tape.data.contents import Array
from mlp_tape.data.datasets import Dataset
from mlp_tape.reports.result import Result
from mlp_tape.storage import histogram_files, run_paths
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.metric_keys import TRAIN_LOSS
from mlp_tape.system import atomic_files, provenance, timeline
from mlp_tape.training.classification import ByClass
from mlp_tape.training.histograms import Histogram, histogram

_is_warm, _warming_up = False, threading.Lock()


@timeline.phase("settings and environment")
def write_settings(directory: Path, settings: Settings) -> None:
    """Writes the files known before the first step.

    They are `config.yaml`, `environment.txt`, and `uncommitted.diff` if the code differs from its commit.
    """
    contents = {
        run_paths.SETTINGS: OmegaConf.to_yaml(OmegaConf.create(to_dict(settings))),
        run_paths.ENVIRONMENT: provenance.as_text(provenance.environment()),
    }
    if provenance.uncommitted_changes():
        contents[run_paths.CHANGES] = provenance.uncommitted_changes()
    for name, text in contents.items():
        atomic_files.write(directory / name, text.encode())


@timeline.phase("weights and results")
def write_results(directory: Path, settings: Settings, dataset: Dataset, result: Result) -> None:
    """Writes the trained network.

    The files are `weights.npz`; `classes.csv`, with precision, recall and F1 of each class; `network.json`,
    which describes the network apart from its weights; and `report.npz`, with the scores of the test images,
    w1 before the first step, and two test images.
    """
    plot_data = {
        "scores": result.scores,
        "first_weights": result.first_weights,
        "examples": dataset.x_test[:2],
    }
    for name, arrays in ((run_paths.WEIGHTS, result.weights), (run_paths.PLOT_DATA, plot_data)):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        atomic_files.write(directory / name, buffer.getvalue())
    atomic_files.write(directory / run_paths.BY_CLASS, _by_class(dataset, result.by_class).encode())
    network = {
        "activation": settings.model.activation,
        "loss": settings.loss,
        "dtype": str(dataset.x_test.dtype),
        "shape": dataset.x_test.shape[1:],
        "n_classes": dataset.n_classes,
        "classes": dataset.classes,
        "class_names": dataset.class_names,
        "mean": float(dataset.x_test.mean(dtype=np.float64)),
    }
    network |= dataset.scale.as_json() | accepted_values(dataset)
    atomic_files.write(directory / run_paths.NETWORK, json.dumps(network).encode())


def _by_class(dataset: Dataset, found: ByClass) -> str:
    """Returns the metrics of each class as CSV."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["class", "test_rows", "precision", "recall", "f1"])
    columns = found.rows.tolist(), found.precision, found.recall, found.f1
    for name, n, *shares in zip(dataset.class_names, *columns, strict=True):
        table.writerow([name, n, *(f"{share:.4f}" for share in shares)])
    return buffer.getvalue()


def accepted_values(dataset: Dataset) -> dict[str, Any]:
    """Returns what tells images of another scale, which a model must not answer, from those of a data set.

    Values may exceed the range of the data set by half its width, integer images by nothing that an image
    of their format cannot contain. A batch is also of another scale if it is not blank, but its largest
    value is less than half the largest value of every image of the data set that is not blank.

    Returns:
        `range`, the smallest and the largest value of the data set; `accepted`, the bounds for each value;
        and `least_peak`, the smallest value that the largest absolute value of a batch may have, unless it
        is 0.
    """
    rows = [x.reshape(len(x), -1) for x in dataset.images if len(x)]
    lows, highs = (np.concatenate([each(x, axis=1) for x in rows]).astype(float) for each in (np.min, np.max))
    low, high = lows.min(), highs.max()
    accepted = low - (high - low) / 2, high + (high - low) / 2
    if len(dataset.scale.offset) > 1:  # a table, whose columns have ranges of their own
        return {"range": (low, high), "accepted": (-np.inf, np.inf), "least_peak": 0.0}
    if dataset.x_train.dtype == np.uint8:
        most = 255.0 if dataset.scale.offset else dataset.scale.divisor[0]
        accepted = max(accepted[0], 0.0), min(accepted[1], most)
    peaks = np.maximum(highs, -lows)
    least_peak = peaks[peaks > 0].min(initial=np.inf) / 2
    return {"range": (low, high), "accepted": accepted, "least_peak": least_peak if high > low else 0.0}


@timeline.phase("import of Matplotlib")
def warm_up() -> None:
    """Imports matplotlib and draws once, so that this can be done in the background during training."""
    global _is_warm
    with _warming_up:
        if not _is_warm:
            from mlp_tape.reports import curve_plots, prediction_plots, style, weight_plots  # noqa: F401

            style.warm_up()
            _is_warm = True


def draw_plots(directory: Path, dataset: Dataset, steps: int, journal: Journal) -> None:
    """Writes the plots of a run to `plots/` in its directory.

    Args:
        directory: directory of the run, with the files that `write_results` writes.
        dataset: data set of the run.
        steps: number of steps trained.
        journal: journal of the run.
    """
    warm_up()
    folder = directory / run_paths.PLOTS
    folder.mkdir(exist_ok=True)
    _draw_training(folder, steps, journal)
    with np.load(directory / run_paths.PLOT_DATA, allow_pickle=False) as archive:
        scores, before = archive["scores"], archive["first_weights"]
    with np.load(directory / run_paths.WEIGHTS, allow_pickle=False) as archive:
        weights = dict(archive)
    _draw_predictions(folder, dataset, scores)
    _draw_weights(folder, dataset, before, weights, list(histogram_files.read(directory)), steps)


@timeline.phase("plots of the training")
def _draw_training(folder: Path, steps: int, journal: Journal) -> None:
    from mlp_tape.reports import curve_plots

    losses = ((row.step, row.value) for row in journal.read(TRAIN_LOSS))
    tested = [
        [(row.step, row.value) for row in journal.read(f"test/{what}")] for what in ("loss", "accuracy")
    ]
    curve_plots.learning_curve(folder / "learning_curve.png", losses, steps, *tested)
    dead, ratios = (_by_layer(journal.read(kind)) for kind in ("units/", "updates/"))
    curve_plots.layers(folder / "layers.png", dead, ratios)


def _by_layer(rows: Iterable[Row], most: int = 2_000) -> dict[str, list[tuple[int, float]]]:
    """Returns step and value of rows such as `updates/w1/ratio`, keyed by the middle part of the row's key.

    Each list is thinned to at most `most` points, evenly spaced.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    every, seen = collections.Counter[str](), collections.Counter[str]()
    for row in rows:
        name = row.key.split("/")[1]
        points = found.setdefault(name, [])
        if seen[name] % (1 << every[name]) == 0:
            points.append((row.step, row.value))
        seen[name] += 1
        if len(points) > most:
            del points[1::2]
            every[name] += 1
    return found


@timeline.phase("plots of the predictions")
def _draw_predictions(folder: Path, dataset: Dataset, scores: Array) -> None:
    from mlp_tape.reports import prediction_plots

    labels, predictions, names = dataset.y_test, scores.argmax(axis=1), dataset.class_names
    prediction_plots.confusion_matrix(folder / "confusion_matrix.png", labels, predictions, names)
    prediction_plots.class_accuracies(folder / "class_accuracy.png", labels, predictions, names)
    if prediction_plots.are_drawn(dataset.x_test):
        prediction_plots.worst_mistakes(folder / "worst_mistakes.png", dataset.x_test, labels, scores, names)


@timeline.phase("plots of the weights")
def _draw_weights(
    folder: Path,
    dataset: Dataset,
    before: Array,
    weights: dict[str, Array],
    times: list[tuple[int, dict[str, Histogram]]],
    steps: int,
) -> None:
    from mlp_tape.reports import weight_plots

    if dataset.x_test.ndim == 3:
        height, width = dataset.x_test.shape[1:]
        weight_plots.first_layer(folder / "first_layer.png", before, weights["w1"], (height, width))
    if times:
        last = {f"params/{name}": histogram(values) for name, values in weights.items()}
        times = [*times, (steps, {key: found for key, found in last.items() if found})]
        weight_plots.histograms(folder / "histograms.png", times)
