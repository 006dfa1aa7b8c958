"""One run, from top to bottom: data, MLflow, training, report."""

import contextlib
import dataclasses
import itertools
import os
import time
from pathlib import Path

from mlp_tape import config, data, provenance, quiet, report
from mlp_tape.config import Settings
from mlp_tape.console import Console
from mlp_tape.data import Dataset
from mlp_tape.journal import Journal
from mlp_tape.redact import without_password
from mlp_tape.tracker import Tracker, Untracked


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
        TrackingError: MLflow cannot be opened, or did not take all.
        DivergenceError: the loss is no longer finite.
    """
    began = time.perf_counter()
    with Console(directory / "console.log") as console, Journal(directory) as journal:
        dataset = data.load(**dataclasses.asdict(settings.dataset), say=console.line)
        if dataset.warning:
            console.warn(dataset.warning)
        named = dataclasses.replace(settings.dataset, name=dataset.name)
        settings = dataclasses.replace(settings, dataset=named)
        layer_sizes = [dataset.n_features, *settings.model.hidden_sizes, dataset.n_classes]
        _introduce(console, settings, dataset, layer_sizes)

        with _tracked(settings, dataset, layer_sizes, overrides, journal) as tracker:
            report.at_the_start(directory, settings, tracker)
            _import_tensorflow()
            from mlp_tape.fit import fit

            result = fit(settings, dataset, layer_sizes, console, journal)
            report.at_the_end(directory, settings, dataset, result, tracker)

        accuracy = result.test_accuracies[-1]
        seconds = time.perf_counter() - began
        console.line(f"test accuracy {accuracy:.4f} after {settings.epochs} epochs, {seconds:.1f} s in all")
        console.line(f"directory     {directory}")
        if tracker.link:
            from mlp_tape.tracking import how_to_open

            console.line(f"run           {tracker.link}")
            console.line(f"to see it     {how_to_open(settings.tracking)}")
    return accuracy


def _tracked(
    settings: Settings,
    dataset: Dataset,
    layer_sizes: list[int],
    overrides: list[str],
    journal: Journal,
) -> contextlib.AbstractContextManager[Tracker]:
    """The run in MLflow while it lasts, or nothing of the kind."""
    if not settings.tracking.enabled:
        return contextlib.nullcontext(Untracked())
    from mlp_tape import tracking

    hparams = _hparams(settings, dataset, layer_sizes)
    tags = provenance.tags(overrides)
    return tracking.open_run(settings.tracking, journal, _name(overrides), hparams, tags)


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


def _hparams(settings: Settings, dataset: Dataset, layer_sizes: list[int]) -> dict[str, object]:
    """What MLflow calls params: the settings, flat, and the data."""
    flat = {key: without_password(str(value)) for key, value in config.flat(settings)}
    return flat | {
        "layer_sizes": layer_sizes,
        "n_train": len(dataset.x_train),
        "data_sha256": dataset.sha256,
    }


def _name(overrides: list[str]) -> str | None:
    """The run's name in the UI: what was typed, but for paths and addresses."""
    told = [text for text in overrides if not text.startswith(("dataset.path=", "tracking."))]
    return " ".join(told)[:200] or None


def _import_tensorflow() -> None:
    """Imports TensorFlow without its start-up lines, and without Keras, which is not used."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # Keras is then imported only when asked for
    with quiet.native_stderr():
        import tensorflow  # noqa: F401
