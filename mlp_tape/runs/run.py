"""Execution of one run: data, tracking, training, report."""

import contextlib
import dataclasses
import functools
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlp_tape.config.settings import Settings
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import ConfigError, DataError, DivergenceError
from mlp_tape.reports import next_step, plot_process, run_report, summary
from mlp_tape.reports.result import Pruned, Result
from mlp_tape.runs.checks import check_fit
from mlp_tape.runs.comparison import Comparison
from mlp_tape.runs.destination import Destination, destination
from mlp_tape.runs.metadata import Job, describe_run
from mlp_tape.runs.pruning import Pruning
from mlp_tape.storage import checkpoint, lock, run_paths, run_record
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.storage.journal import Journal
from mlp_tape.storage.metric_keys import OF_CLASSES, TEST_ACCURACY, TEST_LOSS
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.system import provenance, signals, tensorflow_setup, timeline
from mlp_tape.system.console import Console
from mlp_tape.system.formatting import count
from mlp_tape.tensors.scale import Scale
from mlp_tape.tracking import client_process
from mlp_tape.tracking.session import run_session, tracker
from mlp_tape.tracking.tracker import Tracker
from mlp_tape.tracking.uri import CHECK_SECONDS, check_reachable, recorded_uri, resolve_uri, store_warnings


def execute_run(
    settings: Settings,
    directory: Path,
    command: Command,
    job: Job | None = None,
    dataset: Dataset | None = None,
    on_screen: bool = True,
    comparison: Comparison | None = None,
) -> float | None:
    """Executes a run: loads the data, trains and evaluates, tracks the run, and writes its report.

    Args:
        settings: validated settings; if `resume` is set, those of the run to resume.
        directory: directory of the run, absolute; must exist.
        command: what was typed.
        job: place of the run in a sweep; None if it does not belong to one. A job resumes the run in its
            directory if there is one, does nothing if that has finished, and prints nothing.
        dataset: data set, if it is not the one of the settings.
        on_screen: whether to print, and not only to write `console.log`.
        comparison: compares the run with an earlier one that it repeats; None for any other run.

    Returns:
        The value by which a sweep chooses, such as the validation accuracy; for a run, the accuracy on the
        validation images if there are any, else on the test images. None if it was not measured.

    Raises:
        ConfigError: the directory belongs to another run, or is in use by another process, or the settings
            do not fit the data or the run to resume.
        DataError: the data are not available or not usable, or differ from those of the run to resume.
        TrackingError: MLflow cannot be opened.
        BrokenFileError: the files of the run are too damaged to resume it.
        DivergenceError: the loss is not finite.
        DiskError: the directory cannot be written to.
    """
    began = time.perf_counter()
    if settings.tracking.enabled and job is None:
        check_reachable(resolve_uri(settings.tracking), CHECK_SECONDS)
        client_process.running()  # imports MLflow while the data are loaded
    with lock.hold(directory, wait=-1 if job else 2), Console(on_screen and job is None) as console:
        past = _past(settings, directory, job)
        if job and past and past.status == "FINISHED":  # the sweep sends what MLflow is missing
            return past.chosen_by(job.metric)
        where = Destination(settings.tracking) if job else destination(settings, past, command.overrides)
        settings = dataclasses.replace(settings, tracking=where.tracking)
        if where.line:
            console.line(where.line)
        dataset = job.dataset if job else _data(settings, dataset, past, console)
        settings, dataset = resolved(settings, dataset, past if job else None)
        layer_sizes = dataset.layer_sizes(settings.model.hidden_sizes)
        with Journal(directory) as journal:
            start = _start(settings, dataset, past, journal, console) if past else None
            if settings.tracking.enabled and job is None:
                for warning in store_warnings(resolve_uri(settings.tracking)):
                    console.warn(warning)
            _print_data(settings, dataset, layer_sizes, console)
            record = describe_run(past or RunRecord(directory), settings, dataset, layer_sizes, command, job)
            if past:
                _warn_of_changed_environment(past, console)
            where.prepare(record, settings)
            pruning = job.pruning if job else comparison.pruning if comparison else None
            with client_process.in_use():
                result, tracked = _recorded(
                    settings, dataset, record, journal, console, start, pruning, comparison, began
                )
        if job is None:
            _print_link(tracked, console)
            if comparison is None and isinstance(result, Result):
                for text in next_step.closing(settings, result.accuracy, result.by_class.majority_accuracy):
                    console.line(text)
    return record.chosen_by(job.metric if job else None)


def _recorded(
    settings: Settings,
    dataset: Dataset,
    record: RunRecord,
    journal: Journal,
    console: Console,
    start: Checkpoint | None,
    pruning: Pruning | None,
    comparison: Comparison | None,
    began: float,
) -> tuple[Result | Pruned, Tracker]:
    """Trains and writes the report while the run is tracked.

    MLflow is imported, and its store opened, in a separate process while this one prepares to train.

    Returns:
        The result, and the tracker, which is closed.
    """
    where = tracker(settings.tracking, record, journal)
    tensorflow_setup.import_tensorflow()
    signals.raise_if_stopped()
    if record.full:
        plot_process.start()  # imports Matplotlib while this process compiles
    with timeline.phase("imports"):
        from mlp_tape.runs.fit import fit
        from mlp_tape.runs.trainer import Trainer

    trainer = Trainer(settings, dataset)
    with timeline.phase("compilation"):
        trainer.compile()
    signals.raise_if_stopped()
    files = functools.partial(run_report.write_settings, record.directory, settings)
    with run_session(where, settings.tracking.patience, record, files, console):
        with _timed(record), _verdict_recorded(record, comparison, console):
            result = fit(trainer, record.directory, console, journal, start, record.full, pruning, comparison)
        _note(result, record)
        if isinstance(result, Pruned):
            assert pruning
            console.line(f"pruned after {count(result.epochs, 'epoch')}, {pruning.why}")
            return result, where
        if settings.report != "none":
            run_report.write_results(record.directory, settings, dataset, result)
        if record.full:
            _write_full_report(record, where)
        # Before the session ends, as the copy of the console is then delivered.
        epochs = count(result.steps // trainer.steps_per_epoch, "epoch")
        seconds = time.perf_counter() - began
        console.line(f"test accuracy {result.accuracy:.4f} after {epochs}, {seconds:.1f} s in all")
        for text in summary.rare_classes(dataset, result.by_class):
            console.line(text)
        console.line(f"directory     {record.directory}")
    return result, where


def _print_data(settings: Settings, dataset: Dataset, layer_sizes: list[int], console: Console) -> None:
    """Prints what is trained on, and what may be wrong with it."""
    for text in summary.of_data(settings, dataset, layer_sizes):
        console.line(text)
    for doubt in summary.doubts(settings, dataset):
        console.warn(doubt)


def _print_link(tracked: Tracker, console: Console) -> None:
    """Prints a link to the run in MLflow, if it is recorded there."""
    link = tracked.link()
    if link:
        console.line(f"run           {link.url}")
        console.line(f"to see it     {link.how_to_open}")


def _note(result: Result | Pruned, record: RunRecord) -> None:
    """Enters the result of a training in the record of the run."""
    record.results, record.steps = result.validation, result.steps
    if isinstance(result, Pruned):
        record.pruned, record.full = result.epochs, False
        record.tags |= {"pruned": "true"}
        return
    record.best_epochs = result.best_epochs
    record.results |= {TEST_LOSS: result.loss, TEST_ACCURACY: result.accuracy}
    of_classes = OF_CLASSES if result.by_class.is_imbalanced else OF_CLASSES[:2]
    record.results |= {f"test/{key}": getattr(result.by_class, key) for key in of_classes}


def _write_full_report(record: RunRecord, where: Tracker) -> None:
    """Writes plots, SavedModel and MLflow's model at once, each in its process, from the files of the run."""
    plots = plot_process.Drawing(record.directory, record.steps)
    record.model_ready = True
    record.save()
    where.model_ready()
    with timeline.phase("SavedModel"):
        from mlp_tape.reports import saved_model

        saved_model.save(record.directory)
    with timeline.phase("wait for the plots"):
        plots.wait()


def resolved(settings: Settings, dataset: Dataset, past: RunRecord | None = None) -> tuple[Settings, Dataset]:
    """Returns settings and data set as they are trained on: with validation images, and the data's name.

    Args:
        settings: validated settings.
        dataset: data set as it was loaded.
        past: record of a job to resume; None for any other run.

    Raises:
        ConfigError: the settings do not fit the data.
        DataError: no image would be left to train on.
    """
    check_fit(settings, dataset)
    fraction = settings.validation_fraction or 0.0  # a sweep has decided it for its jobs
    dataset = datasets.with_validation(dataset, fraction, settings.dataset.split_seed)
    settings = dataclasses.replace(settings, validation_fraction=fraction)
    return _resolved_settings(settings, dataset, past), dataset


def _past(settings: Settings, directory: Path, job: Job | None) -> RunRecord | None:
    """Returns the record of the run to resume; None for a new run."""
    if settings.resume:
        return run_record.read(directory)
    if not (directory / run_paths.RECORD).exists():
        return None
    if job:
        return run_record.read(directory)
    raise ConfigError(
        f"{directory} is the directory of another run",
        f"type resume={shlex.quote(str(directory))} to resume that run, or choose another hydra.run.dir",
    )


def _data(settings: Settings, dataset: Dataset | None, past: RunRecord | None, console: Console) -> Dataset:
    dataset = dataset or datasets.load(**dataclasses.asdict(settings.dataset), say=console.line)
    if past and past.data_sha256 != dataset.sha256:
        raise DataError(
            f"the data differ from those of the run: SHA-256 {dataset.sha256[:12]}..., "
            f"the run has {past.data_sha256[:12]}...",
            "set dataset.path=... to the original data, or start a new run without resume",
        )
    if past and "scale" not in past.params:  # an earlier version divided integers by 255, and no floats
        scale = Scale((255.0,) if dataset.x_train.dtype == np.uint8 else (1.0,))
        dataset = dataclasses.replace(dataset, scale=scale if dataset.is_own else dataset.scale)
    if dataset.warning:
        console.warn(dataset.warning)
    return dataset


def _resolved_settings(settings: Settings, dataset: Dataset, past: RunRecord | None) -> Settings:
    """Returns the settings with the name of the loaded data set, and the tracking URI of a resumed job."""
    tracking = settings.tracking
    if past and past.store and tracking.enabled:
        tracking = dataclasses.replace(tracking, uri=recorded_uri(past))
    named = dataclasses.replace(settings.dataset, name=dataset.name)
    shuffle = dataset.is_own if settings.shuffle is None else settings.shuffle
    return dataclasses.replace(settings, dataset=named, tracking=tracking, resume=None, shuffle=shuffle)


@contextlib.contextmanager
def _verdict_recorded(record: RunRecord, comparison: Comparison | None, console: Console) -> Iterator[None]:
    """Records what a comparison has found, also if the training diverges as that of the earlier run did."""
    diverged: DivergenceError | None = None
    try:
        yield
    except DivergenceError as error:
        diverged = error
    if comparison:
        for line in comparison.unseen():
            console.line(line)
        record.tags |= comparison.tags
    if diverged:
        raise diverged


@contextlib.contextmanager
def _timed(record: RunRecord) -> Iterator[None]:
    """Adds the duration of the block to the seconds of the record."""
    began = time.perf_counter()
    try:
        yield
    finally:
        record.seconds += time.perf_counter() - began


def _warn_of_changed_environment(past: RunRecord, console: Console) -> None:
    """Warns if versions or machine differ from those at the start of the run, as results may then differ."""
    now = provenance.fingerprint()
    then = past.made_by
    other = [f"{key} {then.get(key)}, now {now[key]}" for key in now if then.get(key) != now[key]]
    if other:
        console.warn(
            f"The run was started with {'; '.join(other)}.\nFurther results may differ in their last bits."
        )


def _start(
    settings: Settings, dataset: Dataset, past: RunRecord, journal: Journal, console: Console
) -> Checkpoint | None:
    """Returns the last valid checkpoint whose rows are all in the journal; None to start from step 0."""
    journal.recover(past.delivery.position)
    steps_per_epoch = dataset.steps_per_epoch(settings.batch_size)
    for found in checkpoint.usable(past.directory / run_paths.CHECKPOINTS, console.warn):
        if found.about["journal"] > journal.size:
            console.warn(f"checkpoint step-{found.step:09d} refers to rows that are missing from the journal")
            continue
        epoch, step = divmod(found.step, steps_per_epoch)
        if found.step > settings.epochs * steps_per_epoch:
            raise ConfigError(
                f"epochs={settings.epochs}, but the run has already trained "
                f"{count(epoch, 'epoch')} and {count(step, 'step')}",
                f"type epochs={epoch + 1} or more",
            )
        console.line(f"resumed after {count(found.step, 'step')}, at epoch {epoch}  step {step}")
        return found
    console.line("resumed at the first step")
    return None
