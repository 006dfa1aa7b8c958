"""The plots of a run, drawn from the files in its directory. Importing this module imports Matplotlib."""

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_tape.reports import curve_plots, prediction_plots, weight_plots
from mlp_tape.storage import histogram_files, journal, run_paths
from mlp_tape.storage.journal import Row
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS, TRAIN_LOSS
from mlp_tape.system import timeline
from mlp_tape.training.histograms import Histogram, histogram

Arrays = Mapping[str, NDArray[Any]]


def draw(directory: Path, steps: int) -> None:
    """Writes the plots of a run to `plots/` in its directory.

    Args:
        directory: directory of the run, with the files that `run_report.write_results` writes.
        steps: number of steps trained.
    """
    folder = directory / run_paths.PLOTS
    folder.mkdir(exist_ok=True)
    shape = json.loads((directory / run_paths.NETWORK).read_bytes())["shape"]
    data, weights = (_arrays(directory / name) for name in (run_paths.PLOT_DATA, run_paths.WEIGHTS))
    _draw_training(directory, folder, steps)
    _draw_predictions(folder, data, data["class_names"].tolist())
    times = list(histogram_files.read(directory))
    _draw_weights(folder, shape, data["first_weights"], weights, times, steps)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@timeline.phase("plots of the training")
def _draw_training(directory: Path, folder: Path, steps: int) -> None:
    losses = ((row.step, row.value) for row in journal.rows(directory, TRAIN_LOSS))
    keys = TEST_LOSS, TEST_ACCURACY
    tested = ([(row.step, row.value) for row in journal.rows(directory, key)] for key in keys)
    curve_plots.learning_curve(folder / "learning_curve.png", losses, steps, *tested)
    dead, ratios = (_by_layer(journal.rows(directory, kind)) for kind in ("units/", "updates/"))
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
def _draw_predictions(folder: Path, data: Arrays, names: Sequence[str]) -> None:
    labels, scores, images = data["labels"], data["scores"], data["mistakes"]
    predictions = scores.argmax(axis=1)
    prediction_plots.confusion_matrix(folder / "confusion_matrix.png", labels, predictions, names)
    prediction_plots.class_accuracies(folder / "class_accuracy.png", labels, predictions, names)
    if prediction_plots.are_drawn(images):
        prediction_plots.worst_mistakes(folder / "worst_mistakes.png", images, labels, scores, names)


@timeline.phase("plots of the weights")
def _draw_weights(
    folder: Path,
    shape: Sequence[int],
    before: NDArray[Any],
    weights: Arrays,
    times: list[tuple[int, dict[str, Histogram]]],
    steps: int,
) -> None:
    if len(shape) == 2:
        weight_plots.first_layer(folder / "first_layer.png", before, weights["w1"], (shape[0], shape[1]))
    if times:
        last = {f"params/{name}": histogram(values) for name, values in weights.items()}
        times = [*times, (steps, {key: found for key, found in last.items() if found})]
        weight_plots.histograms(folder / "histograms.png", times)
