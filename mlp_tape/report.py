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


def at_the_start(directory: Path, settings: Settings) -> list[Path]:
    """Writes what is known before the first step: `config.yaml` and `environment.txt`."""
    contents = {
        "config.yaml": OmegaConf.to_yaml(OmegaConf.create(config.nested(settings))),
        "environment.txt": provenance.environment(),
    }
    for name, text in contents.items():
        files.write(directory / name, text.encode())
    return [directory / name for name in contents]


def at_the_end(
    directory: Path, settings: Settings, dataset: Dataset, result: Result, journal: Journal
) -> None:
    """Writes what was learnt: pictures, `weights.npz`, and `network.json` with what else its model needs."""
    _pictures(directory / "plots", dataset, result, journal)
    buffer = io.BytesIO()
    np.savez(buffer, **result.weights)  # type: ignore[arg-type]
    files.write(directory / "weights.npz", buffer.getvalue())
    network = {
        "activation": settings.model.activation,
        "scale": dataset.scale,
        "dtype": str(dataset.x_test.dtype),
        "shape": dataset.x_test.shape[1:],
        "n_classes": dataset.n_classes,
    }
    files.write(directory / "network.json", json.dumps(network).encode())


def _pictures(folder: Path, dataset: Dataset, result: Result, journal: Journal) -> None:
    from mlp_tape import plots  # imports matplotlib

    folder.mkdir(exist_ok=True)
    curves = [[(row.step, row.value) for row in journal.read(key)] for key in ("test/loss", "test/accuracy")]
    losses = ((row.step, row.value) for row in journal.read("train/loss"))
    plots.learning_curve(folder / "learning_curve.png", losses, result.steps, *curves)
    plots.confusion_matrix(
        folder / "confusion_matrix.png", dataset.y_test, result.predictions, dataset.n_classes
    )
