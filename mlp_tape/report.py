"""What a run leaves behind in its directory: settings, weights, pictures, and what its model needs."""

import io
import json
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from mlp_tape import config, files, provenance
from mlp_tape.config import Settings
from mlp_tape.data import Dataset
from mlp_tape.journal import Journal
from mlp_tape.result import Result


def at_the_start(directory: Path, settings: Settings) -> None:
    """Writes what is known before the first step: `config.yaml` and `environment.txt`."""
    contents = {
        "config.yaml": OmegaConf.to_yaml(OmegaConf.create(config.nested(settings))),
        "environment.txt": provenance.environment(),
    }
    for name, text in contents.items():
        files.write(directory / name, text.encode())


def at_the_end(directory: Path, settings: Settings, dataset: Dataset, result: Result) -> None:
    """Writes what was learnt.

    That is `weights.npz`; `network.json`, with what else its model needs; and `predictions.npy`, the classes
    that it takes the test images for.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **result.weights)  # type: ignore[arg-type]
    files.write(directory / "weights.npz", buffer.getvalue())
    buffer = io.BytesIO()
    np.save(buffer, result.predictions.astype(np.uint16))
    files.write(directory / "predictions.npy", buffer.getvalue())
    network = {
        "activation": settings.model.activation,
        "scale": dataset.scale,
        "dtype": str(dataset.x_test.dtype),
        "shape": dataset.x_test.shape[1:],
        "n_classes": dataset.n_classes,
    }
    files.write(directory / "network.json", json.dumps(network).encode())


def get_ready() -> None:
    """Imports what draws, which takes a while; while there is training nobody waits for it."""
    from mlp_tape import plots  # noqa: F401


def in_pictures(directory: Path, dataset: Dataset, steps: int, journal: Journal) -> None:
    """Draws what a run left in its directory.

    Args:
        directory: of a run whose `predictions.npy` is there.
        dataset: of the run.
        steps: how many were trained.
        journal: of the run.
    """
    from mlp_tape import plots  # imports matplotlib

    predictions = np.load(directory / "predictions.npy", allow_pickle=False)
    folder = directory / "plots"
    folder.mkdir(exist_ok=True)
    curves = [[(row.step, row.value) for row in journal.read(key)] for key in ("test/loss", "test/accuracy")]
    losses = ((row.step, row.value) for row in journal.read("train/loss"))
    plots.learning_curve(folder / "learning_curve.png", losses, steps, *curves)
    plots.confusion_matrix(folder / "confusion_matrix.png", dataset.y_test, predictions, dataset.n_classes)
