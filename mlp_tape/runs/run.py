"""One run, from top to bottom: data, MLflow, training, report."""

import contextlib
import dataclasses
import functools
import itertools
import shlex
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mlp_tape.config.settings import Settings
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import ConfigError, DataError
from mlp_tape.reports import run_report
from mlp_tape.reports.result import Result
from mlp_tape.runs.metadata import Job, noted
from mlp_tape.storage import checkpoint, lock, run_record
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system import provenance, signals, tensorflow_setup
from mlp_tape.system.console import Console
from mlp_tape.tracking.session import recorded, tracker
from mlp_tape.tracking.uri import (
    CHECK_SECONDS,
    check_reachable,
    how_to_open,
    recorded_uri,
    resolve_uri,
    store_warnings,
)


def execute_run(settings: Settings, directory: Path, overrides: list[str], job: Job | None = None) -> float:
    """Runs what the settings say.

    Args:
        settings: checked; where `resume` is set, those of the run that is gone on with.
        directory: the run's own, absolute; exists.
        overrides: as typed on the command line.
        job: where it belongs to a sweep. Such a run is gone on with if its directory holds one, and is not
            run again if it had finished; the screen is left to the sweep.

    Returns:
        The accuracy to choose by, 0 to 1: of the validation images where there are some, else of the test.

    Raises:
        ConfigError: the directory is another run's, or another process is at work on it.
        DataError: the data cannot be had or used, or are not those of the run that is gone on with.
        TrackingError: MLflow cannot be opened.
        BrokenFileError: what the run left cannot be gone on with.
        DivergenceError: the loss is no longer finite.
        DiskError: the directory takes no more.
    """
    began = time.perf_counter()
    if settings.tracking.enabled and job is None:
        check_reachable(resolve_uri(settings.tracking), CHECK_SECONDS)
    with lock.at_work(directory, wait=-1 if job else 2), Console(on_screen=job is None) as console:
        past = _past(settings, directory, job)
        if job and past and past.status == "FINISHED":  # the sweep sends what MLflow has not got of it
            return past.chosen_by
        dataset = job.dataset if job else _data(settings, past, console)
        dataset = datasets.with_validation(dataset, settings.validation_fraction)
        settings = _as_run(settings, dataset, past if job else None)
        _refuse_to_move(settings, dataset)
        layer_sizes = dataset.layer_sizes(settings.model.hidden_sizes)
        with Journal(directory) as journal:
            start = _start(settings, dataset, directory, journal, console) if past else None
            if settings.tracking.enabled and job is None:
                for warning in store_warnings(resolve_uri(settings.tracking)):
                    console.warn(warning)
            _introduce(console, settings, dataset, layer_sizes)
            note = noted(past or RunRecord(directory), settings, dataset, layer_sizes, overrides, job)
            if past:
                _warn_of_other_makers(past, console)
            result, link = _recorded(settings, dataset, layer_sizes, note, journal, console, start)

        seconds = time.perf_counter() - began
        epochs = result.steps / dataset.steps_per_epoch(settings.batch_size)
        console.line(f"test accuracy {result.accuracy:.4f} after {epochs:g} epochs, {seconds:.1f} s in all")
        console.line(f"directory     {directory}")
        if link:
            console.line(f"run           {link}")
            console.line(f"to see it     {how_to_open(resolve_uri(settings.tracking))}")
    return result.chosen_by


def _recorded(
    settings: Settings,
    dataset: Dataset,
    layer_sizes: list[int],
    note: RunRecord,
    journal: Journal,
    console: Console,
    start: Checkpoint | None,
) -> tuple[Result, str]:
    """Trains and reports, with the run in MLflow around it; also returns what opens it there.

    MLflow is imported, and its store opened, in a process of its own while this one gets ready to train.
    """
    where = tracker(settings.tracking, note, journal)
    tensorflow_setup.import_tensorflow()
    signals.raise_if_asked()
    from mlp_tape.reports import saved_model
    from mlp_tape.runs.fit import fit
    from mlp_tape.runs.trainer import Trainer

    trainer = Trainer(settings, dataset)
    trainer.compile()
    signals.raise_if_asked()
    files = functools.partial(run_report.at_the_start, note.directory, settings)
    with recorded(where, settings.tracking.patience, note, files, journal, console):
        if note.full:
            threading.Thread(target=run_report.get_ready, daemon=True).start()
        with _timed(note):
            result = fit(trainer, note.directory, console, journal, start, note.full)
        note.results = {"test/loss": result.loss, "test/accuracy": result.accuracy}
        if trainer.validates:
            note.results["validation/accuracy"] = result.chosen_by
        note.steps = result.steps
        if settings.report != "none":
            run_report.at_the_end(note.directory, settings, dataset, result)
        if note.full:
            saved_model.save(note.directory)
            where.give_model()
            run_report.in_pictures(note.directory, dataset, note.steps, journal)
    return result, where.link


def _refuse_to_move(settings: Settings, dataset: Dataset) -> None:
    """Only images of one colour have a height and a width to be moved and turned in."""
    if (settings.augment.shift or settings.augment.rotate) and dataset.x_train.ndim != 3:
        shape = dataset.x_train.shape[1:]
        raise ConfigError(
            f"augment moves images of [height, width], and those of {dataset.name} are {list(shape)}",
            "leave augment.shift and augment.rotate at 0",
        )


def _past(settings: Settings, directory: Path, job: Job | None) -> RunRecord | None:
    """What the directory says of the run that is gone on with."""
    if settings.resume:
        return run_record.read(directory)
    if not (directory / run_record.FILE).exists():
        return None
    if job:
        return run_record.read(directory)
    raise ConfigError(
        f"{directory} is the directory of another run",
        f"type resume={shlex.quote(str(directory))} to go on with that, or give another hydra.run.dir",
    )


def _data(settings: Settings, past: RunRecord | None, console: Console) -> Dataset:
    dataset = datasets.load(**dataclasses.asdict(settings.dataset), say=console.line)
    if past and past.data_sha256 != dataset.sha256:
        raise DataError(
            f"the data differ from those of the run: SHA-256 {dataset.sha256[:12]}..., "
            f"the run has {past.data_sha256[:12]}...",
            "give the dataset.path=... of those, or start a new run without resume",
        )
    if dataset.warning:
        console.warn(dataset.warning)
    return dataset


def _as_run(settings: Settings, dataset: Dataset, past: RunRecord | None) -> Settings:
    """The settings with what is known by now: which data they are, and where a job has its run."""
    tracking = settings.tracking
    if past and past.uri and tracking.enabled:
        tracking = dataclasses.replace(tracking, uri=recorded_uri(past.uri))
    named = dataclasses.replace(settings.dataset, name=dataset.name)
    return dataclasses.replace(settings, dataset=named, tracking=tracking, resume=None)


@contextlib.contextmanager
def _timed(note: RunRecord) -> Iterator[None]:
    """Adds the time of the block to that of earlier processes."""
    began = time.perf_counter()
    try:
        yield
    finally:
        note.seconds += time.perf_counter() - began


def _warn_of_other_makers(past: RunRecord, console: Console) -> None:
    """The same bits come of the same program on the same kind of machine only."""
    now = provenance.makers()
    other = [
        f"{key} {past.made_by.get(key)}, now {now[key]}" for key in now if past.made_by.get(key) != now[key]
    ]
    if other:
        console.warn(f"The run was begun with {'; '.join(other)}.\nWhat follows may differ in its last bits.")


def _start(
    settings: Settings, dataset: Dataset, directory: Path, journal: Journal, console: Console
) -> Checkpoint | None:
    """The last good checkpoint whose rows are all in the journal; None to begin with the first step."""
    journal.recover()
    steps_per_epoch = dataset.steps_per_epoch(settings.batch_size)
    for found in checkpoint.usable(directory / checkpoint.FOLDER, console.warn):
        if found.about["journal"] > journal.size:
            console.warn(f"checkpoint step-{found.step:09d} counts on rows that the journal has lost")
            continue
        epoch, step = divmod(found.step, steps_per_epoch)
        if found.step > settings.epochs * steps_per_epoch:
            raise ConfigError(
                f"epochs={settings.epochs}, but the run has trained {epoch} and {step} steps",
                f"type epochs={epoch + 1} or more",
            )
        console.line(f"resumed after {found.step:,} steps, at epoch {epoch}  step {step}")
        return found
    console.line("resumed at the first step")
    return None


def _introduce(console: Console, settings: Settings, dataset: Dataset, layer_sizes: list[int]) -> None:
    """Prints what the seed program prints of its data, and the network."""
    x, y, b = dataset.x_train, dataset.y_train, min(settings.batch_size, len(dataset.x_train))
    low, high = dataset.span
    kept = f", {len(dataset.y_validation):,} to validate" if len(dataset.y_validation) else ""
    console.line(
        f"data   {dataset.name}, {len(x):,} images to train on{kept}, {len(dataset.x_test):,} to test"
    )
    console.line(f"x      {x.shape} float32, min {low:.1f}, max {high:.1f}")
    console.line(f"y      {y.shape} {y.dtype}, min {y.min()}, max {y.max()}")
    console.line(f"batch  {(b, *x.shape[1:])} {(b,)}")
    weights = sum((d_in + 1) * d_out for d_in, d_out in itertools.pairwise(layer_sizes))
    console.line(f"layers {' -> '.join(map(str, layer_sizes))}, {weights:,} parameters")
