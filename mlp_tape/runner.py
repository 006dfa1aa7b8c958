"""One run, from top to bottom: data, parameters, training, report."""

import dataclasses
import itertools
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import OmegaConf

from mlp_tape import config, data, provenance, quiet
from mlp_tape.config import Settings
from mlp_tape.console import Console
from mlp_tape.data import Dataset
from mlp_tape.errors import DivergenceError
from mlp_tape.journal import Journal, Row

if TYPE_CHECKING:
    from mlp_tape.evaluate import Evaluation
    from mlp_tape.model import Params
    from mlp_tape.tracking import Tracker
    from mlp_tape.train import Block, Recipe


@dataclasses.dataclass
class History:
    """What the report is drawn from: every loss, and each epoch's evaluation of the test images."""

    losses: list[np.ndarray] = dataclasses.field(default_factory=list)
    evaluations: list["Evaluation"] = dataclasses.field(default_factory=list)


def run(settings: Settings, directory: Path, overrides: list[str]) -> float:
    """Runs what the settings say.

    Args:
        settings: checked.
        directory: the run's own, absolute; exists.
        overrides: as typed on the command line.

    Returns:
        The last test accuracy, 0 to 1.

    Raises:
        DataError: the data cannot be had or used.
        TrackingError: MLflow cannot be opened.
        DivergenceError: the loss is no longer finite.
    """
    began = time.perf_counter()
    with Console(directory / "console.log") as console, Journal(directory) as journal:
        dataset = data.load(**dataclasses.asdict(settings.dataset), say=console.line)
        if dataset.warning:
            console.warn(dataset.warning)
        settings = dataclasses.replace(
            settings, dataset=dataclasses.replace(settings.dataset, name=dataset.name)
        )
        layer_sizes = [dataset.n_features, *settings.model.hidden_sizes, dataset.n_classes]
        _introduce(console, settings, dataset, layer_sizes)
        hparams = _hparams(settings) | {
            "layer_sizes": layer_sizes,
            "n_train": len(dataset.x_train),
            "data_sha256": dataset.sha256,
        }
        tags = provenance.tags(overrides)
        from mlp_tape import tracking  # imports MLflow

        with tracking.open_run(settings.tracking, journal, _name(overrides), hparams, tags) as tracker:
            _save_beginning(directory, settings, tracker)
            _import_tensorflow()
            from mlp_tape import model

            params = model.init_params(layer_sizes, settings.model.init_stddev, settings.seed)
            history = _train(settings, dataset, params, console, journal)
            _report(directory, settings, dataset, params, history, tracker)
        accuracy = history.evaluations[-1].accuracy
        seconds = time.perf_counter() - began
        console.line(f"test accuracy {accuracy:.4f} after {settings.epochs} epochs, {seconds:.1f} s in all")
        console.line(f"directory     {directory}")
        if tracker.link:
            console.line(f"run           {tracker.link}")
            console.line(f"to see it     {tracking.how_to_open(settings.tracking)}")
    return accuracy


def _import_tensorflow() -> None:
    """Imports TensorFlow without its start-up lines, and without Keras, which is not used."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Keras is then imported only when asked for
    with quiet.native_stderr():
        import tensorflow  # noqa: F401


def _introduce(console: Console, settings: Settings, dataset: Dataset, layer_sizes: list[int]) -> None:
    """Prints what the seed program prints of its data, and the network."""
    x, y, b = dataset.x_train, dataset.y_train, min(settings.batch_size, len(dataset.x_train))
    low, high = x.min() / dataset.scale, x.max() / dataset.scale
    console.line(f"data   {dataset.name}, {len(x):,} images to train on, {len(dataset.x_test):,} to test")
    console.line(f"x      {x.shape} float32, min {low:.1f}, max {high:.1f}")
    console.line(f"y      {y.shape} {y.dtype}, min {y.min()}, max {y.max()}")
    console.line(f"batch  {(b, *x.shape[1:])} {(b,)}")
    weights = sum((d_in + 1) * d_out for d_in, d_out in itertools.pairwise(layer_sizes))
    console.line(f"layers {' -> '.join(map(str, layer_sizes))}, {weights:,} parameters")


def _hparams(settings: Settings) -> dict[str, object]:
    """The settings as MLflow's params, flat."""
    return {key: config.without_password(str(value)) for key, value in config.flat(settings)}


def _name(overrides: list[str]) -> str | None:
    """The run's name in the UI: what was typed, but for paths and addresses."""
    told = [text for text in overrides if not text.startswith(("dataset.path=", "tracking."))]
    return " ".join(told)[:200] or None


def _save_beginning(directory: Path, settings: Settings, tracker: "Tracker") -> None:
    """Keeps what is known before the first step."""
    plain = OmegaConf.to_yaml(OmegaConf.structured(settings))
    (directory / "config.yaml").write_text(config.without_password(plain))
    (directory / "environment.txt").write_text(provenance.environment())
    for name in ("config.yaml", "environment.txt"):
        tracker.artifact(directory / name)


def _recipe(settings: Settings, dataset: Dataset) -> "Recipe":
    from mlp_tape import model, optimizer, train

    return train.Recipe(
        activation=model.ACTIVATIONS[settings.model.activation],
        loss=model.LOSSES[settings.loss],
        optimizer=optimizer.OPTIMIZERS[settings.optimizer.name],
        scale=dataset.scale,
    )


def _train(
    settings: Settings, dataset: Dataset, params: "Params", console: Console, journal: Journal
) -> History:
    """Trains; prints and journals each block, and evaluates at each epoch's end."""
    from mlp_tape import evaluate, train

    recipe, history = _recipe(settings, dataset), History()
    steps_per_epoch = -(-len(dataset.x_train) // settings.batch_size)
    blocks = train.train(
        params,
        dataset.x_train,
        dataset.y_train,
        recipe,
        lr=settings.lr,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        log_every=settings.log_every,
        engine=settings.engine,
        shuffle_seed=settings.seed if settings.shuffle else None,
    )
    with console.progress(settings.epochs * steps_per_epoch) as advance:
        for block in blocks:
            journal.append(_rows(block, time.time()))
            _refuse_divergence(block)
            history.losses.append(block.losses)
            loss = float(block.losses[0])
            console.line(f"epoch {block.epoch}  step {block.step}  loss {loss:.6f}")
            advance(len(block.losses), f"epoch {block.epoch + 1}/{settings.epochs}  loss {loss:.4f}")
            if block.ends_epoch:
                result = evaluate.evaluate(params, dataset.x_test, dataset.y_test, recipe)
                history.evaluations.append(result)
                console.line(
                    f"epoch {block.epoch}  test loss {result.loss:.6f}  accuracy {result.accuracy:.4f}"
                )
                last, now = block.global_step + len(block.losses) - 1, int(1000 * time.time())
                journal.append(
                    [
                        Row("test/loss", last, result.loss, now),
                        Row("test/accuracy", last, result.accuracy, now),
                    ]
                )
    return history


def _rows(block: "Block", ended: float) -> Iterator[Row]:
    """The block's finite values as metric rows; each loss at the time its step ended."""
    began, each = ended - block.seconds, block.seconds / len(block.losses)
    for i, loss in enumerate(block.losses.tolist()):
        if math.isfinite(loss):
            yield Row("train/loss", block.global_step + i, loss, int(1000 * (began + (i + 1) * each)))
    for key, value in block.statistics.items():
        if math.isfinite(value):
            yield Row(key, block.global_step, value, int(1000 * (began + each)))


def _refuse_divergence(block: "Block") -> None:
    broken = np.flatnonzero(~np.isfinite(block.losses))
    if broken.size:
        i = int(broken[0])
        raise DivergenceError(
            f"the loss is {block.losses[i]} at step {block.global_step + i} (epoch {block.epoch}, "
            f"step {block.step + i})",
            "type a smaller lr=... or model.init_stddev=...",
        )


def _report(
    directory: Path,
    settings: Settings,
    dataset: Dataset,
    params: "Params",
    history: History,
    tracker: "Tracker",
) -> None:
    """Saves and tracks the weights, the pictures and the model."""
    from mlp_tape import plots

    weights = directory / "weights.npz"
    np.savez(weights, **{name: param.numpy() for name, param in params.items()})
    pictures = directory / "plots"
    pictures.mkdir(exist_ok=True)
    losses = np.concatenate(history.losses)
    plots.learning_curve(
        pictures / "learning_curve.png",
        losses,
        len(losses) // settings.epochs,
        [each.loss for each in history.evaluations],
        [each.accuracy for each in history.evaluations],
    )
    predictions = history.evaluations[-1].predictions
    plots.confusion_matrix(pictures / "confusion_matrix.png", dataset.y_test, predictions, dataset.n_classes)
    tracker.artifact(weights)
    for picture in sorted(pictures.glob("*.png")):
        tracker.artifact(picture, "plots")
    network = directory / "network.json"
    network.write_text(json.dumps({"activation": settings.model.activation, "scale": dataset.scale}))
    files = {"weights": weights, "network": network}
    tracker.model(files, dataset.x_test[:2], dataset.n_classes, len(losses) - 1)
