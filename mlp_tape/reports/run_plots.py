"""The plots of a run, drawn from the files in its directory. Importing this module imports Matplotlib."""

import collections
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_tape.reports import curve_plots, prediction_plots, weight_plots
from mlp_tape.storage import histogram_files, journal, run_paths
from mlp_tape.storage.journal import Row
from mlp_tape.storage.metric_keys import TEST_ACCURACY, TEST_LOSS, TRAIN_LOSS
from mlp_tape.system import timeline
from mlp_tape.training.histograms import histogram


def draw(directory: Path, steps: int) -> None:
    """Writes the plots of a run to `plots/` in its directory.

    Args:
        directory: directory of the run, with the files that `run_report.write_results` writes.
        steps: number of steps trained.
    """
    for part in PARTS:
        part(directory, steps)


def _folder(directory: Path) -> Path:
    folder = directory / run_paths.PLOTS
    folder.mkdir(exist_ok=True)
    return folder


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


@timeline.phase("plots of the training")
def _draw_training(directory: Path, steps: int) -> None:
    folder = _folder(directory)
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
def _draw_predictions(directory: Path, _steps: int) -> None:
    folder, data = _folder(directory), _arrays(directory / run_paths.PLOT_DATA)
    labels, scores, images = data["labels"], data["scores"], data["mistakes"]
    names = data["class_names"].tolist()
    predictions = scores.argmax(axis=1)
    prediction_plots.confusion_matrix(folder / "confusion_matrix.png", labels, predictions, names)
    prediction_plots.class_accuracies(folder / "class_accuracy.png", labels, predictions, names)
    if prediction_plots.are_drawn(images):
        prediction_plots.worst_mistakes(folder / "worst_mistakes.png", images, labels, scores, names)


@timeline.phase("plots of the weights")
def _draw_weights(directory: Path, steps: int) -> None:
    folder, weights = _folder(directory), _arrays(directory / run_paths.WEIGHTS)
    shape = json.loads((directory / run_paths.NETWORK).read_bytes())["shape"]
    if len(shape) == 2:
        before = _arrays(directory / run_paths.PLOT_DATA)["first_weights"]
        weight_plots.first_layer(folder / "first_layer.png", before, weights["w1"], (shape[0], shape[1]))
    times = list(histogram_files.read(directory))
    if times:
        last = {f"params/{name}": histogram(values) for name, values in weights.items()}
        times = [*times, (steps, {key: found for key, found in last.items() if found})]
        weight_plots.histograms(folder / "histograms.png", times)


# Each takes the directory of the run and the number of steps; they are independent of each other.
PARTS = (_draw_training, _draw_predictions, _draw_weights)
