"""What a run leaves behind, in its directory and in MLflow: settings, weights, pictures, the model."""

import json
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from mlp_tape import provenance
from mlp_tape.config import Settings
from mlp_tape.data import Dataset
from mlp_tape.redact import without_password
from mlp_tape.result import Result
from mlp_tape.tracker import Tracker


def at_the_start(directory: Path, settings: Settings, tracker: Tracker) -> None:
    """Keeps what is known before the first step: `config.yaml` and `environment.txt`."""
    plain = OmegaConf.to_yaml(OmegaConf.structured(settings))
    (directory / "config.yaml").write_text(without_password(plain))
    (directory / "environment.txt").write_text(provenance.environment())
    for name in ("config.yaml", "environment.txt"):
        tracker.artifact(directory / name)


def at_the_end(
    directory: Path, settings: Settings, dataset: Dataset, result: Result, tracker: Tracker
) -> None:
    """Keeps what was learnt: pictures, weights and MLflow's model of them."""
    _pictures(directory / "plots", dataset, result)
    for picture in sorted((directory / "plots").glob("*.png")):
        tracker.artifact(picture, "plots")
    files = {"weights": directory / "weights.npz", "network": directory / "network.json"}
    np.savez(files["weights"], **result.weights)  # type: ignore[arg-type]
    files["network"].write_text(json.dumps({"activation": settings.model.activation, "scale": dataset.scale}))
    tracker.artifact(files["weights"])
    tracker.model(files, dataset.x_test[:1], dataset.n_classes, result.rows)


def _pictures(folder: Path, dataset: Dataset, result: Result) -> None:
    from mlp_tape import plots  # imports matplotlib

    folder.mkdir(exist_ok=True)
    losses = np.asarray(result.losses)
    plots.learning_curve(folder / "learning_curve.png", losses, result.test_losses, result.test_accuracies)
    plots.confusion_matrix(
        folder / "confusion_matrix.png", dataset.y_test, result.predictions, dataset.n_classes
    )
