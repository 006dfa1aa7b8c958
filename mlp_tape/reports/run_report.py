"""Files that a run writes to its directory: settings, weights, the description of the model."""

import csv
import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from mlp_tape.config.settings import Settings, to_dict
from mlp_tape.data.contents import Array
from mlp_tape.data.datasets import Dataset
from mlp_tape.reports import mistakes
from mlp_tape.reports.result import Result
from mlp_tape.storage import run_paths
from mlp_tape.system import atomic_files, provenance, timeline
from mlp_tape.training.classification import ByClass


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
    which describes the network apart from its weights; and `report.npz`, which `write_plot_data` writes.
    """
    _write_arrays(directory / run_paths.WEIGHTS, result.weights)
    write_plot_data(directory, dataset, result.scores, result.first_weights)
    atomic_files.write(directory / run_paths.BY_CLASS, _by_class(dataset, result.by_class).encode())
    network = {
        "activation": settings.model.activation,
        "loss": settings.loss,
        "dtype": str(dataset.x_test.dtype),
        "shape": dataset.x_test.shape[1:],
        "n_classes": dataset.n_classes,
        "classes": dataset.classes,
        "class_names": dataset.class_names,
    }
    network |= dataset.scale.as_json() | _values(dataset)
    atomic_files.write(directory / run_paths.NETWORK, json.dumps(network).encode())


def write_plot_data(directory: Path, dataset: Dataset, scores: Array, first_weights: Array) -> None:
    """Writes what the plots need apart from the weights and the journal, to `report.npz`.

    Args:
        directory: directory of the run.
        dataset: data set of the run.
        scores: logits of the test images, float32 [n, classes].
        first_weights: w1 before the first step.
    """
    worst = mistakes.worst(dataset.y_test, scores)
    arrays = {
        "scores": scores,
        "labels": dataset.y_test,
        "class_names": np.array(dataset.class_names, str),
        "mistakes": dataset.x_test[worst],
        "first_weights": first_weights,
        "examples": dataset.x_test[:2],
    }
    _write_arrays(directory / run_paths.PLOT_DATA, arrays)


def complete_plot_data(directory: Path, dataset: Dataset) -> None:
    """Adds to `report.npz` what an earlier version did not write; the arguments are as above."""
    with np.load(directory / run_paths.PLOT_DATA, allow_pickle=False) as archive:
        known = dict(archive)
    if "class_names" not in known:
        write_plot_data(directory, dataset, known["scores"], known["first_weights"])


def _write_arrays(path: Path, arrays: dict[str, Array]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    atomic_files.write(path, buffer.getvalue())


def _by_class(dataset: Dataset, found: ByClass) -> str:
    """Returns the metrics of each class as CSV."""
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["class", "test_rows", "precision", "recall", "f1"])
    columns = found.rows.tolist(), found.precision, found.recall, found.f1
    for name, n, *shares in zip(dataset.class_names, *columns, strict=True):
        table.writerow([name, n, *(f"{share:.4f}" for share in shares)])
    return buffer.getvalue()


@functools.lru_cache(maxsize=1)  # the jobs of most sweeps share the data
def _values(dataset: Dataset) -> dict[str, Any]:
    """Returns the mean of the test images, `mean`, and the bounds that `accepted_values` describes."""
    return {"mean": float(dataset.x_test.mean(dtype=np.float64))} | accepted_values(dataset)


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
