"""Metadata recorded before a run begins: its settings, its data, and its place in a sweep."""

import dataclasses
import os
import secrets
from dataclasses import dataclass

from mlp_tape.config.settings import (
    OF_MLFLOW,
    RULE_SETTINGS,
    SCHEDULE_SETTINGS,
    Settings,
    flatten,
    is_description,
    to_dict,
)
from mlp_tape.data.datasets import Dataset
from mlp_tape.runs.pruning import Pruning
from mlp_tape.storage.run_record import Command, RunRecord
from mlp_tape.system import formatting, provenance
from mlp_tape.system.redaction import without_password

NAME = "MLFLOW_RUN_NAME"  # environment variable
# Settings that only some update rules or schedules use.
OF_ONE_RULE = {
    f"{group}.{key}"
    for group, known in (("optimizer", RULE_SETTINGS), ("schedule", SCHEDULE_SETTINGS))
    for keys in known.values()
    for key in keys
}


@dataclass(frozen=True)
class Job:
    """A run's place in a sweep.

    Attributes:
        name: values of the swept settings, such as `lr=0.1`.
        parent: MLflow run id of the sweep; empty if there is none.
        dataset: data set, the same object for all jobs of a process with the same dataset settings.
        metric: metric by which the sweep chooses; None for accuracy.
        pruning: what may end the job early; None if nothing does.
    """

    name: str
    parent: str
    dataset: Dataset
    metric: str | None = None
    pruning: Pruning | None = None


def describe_run(
    record: RunRecord,
    settings: Settings,
    dataset: Dataset,
    layer_sizes: list[int],
    command: Command,
    job: Job | None,
) -> RunRecord:
    """Fills in the record of a run with everything known before it begins.

    Args:
        record: new record, or that of a run to resume; changed in place.
        settings: settings of the run, with the name of the data set that is actually used.
        dataset: data set of the run.
        layer_sizes: width of each layer, from the input to the number of classes.
        command: what was typed.
        job: the run's place in a sweep; None if it does not belong to one.

    Returns:
        The given record.
    """
    if record.made_by:
        earlier = dataclasses.replace(settings, epochs=record.settings["epochs"])
        is_given = record.name != _name(record.overrides, earlier)
        record.overrides = _resumed_overrides(record, settings.epochs)
        if not job and settings.run_name and settings.run_name != record.settings.get("run_name"):
            record.name = settings.run_name
        elif not job and not record.parent and not is_given:
            record.name = _name(record.overrides, settings)
    else:
        record.options = command.options
        record.overrides = [without_password(text) for text in command.overrides]
        record.made_by, record.source = provenance.fingerprint(), provenance.tags()
        record.token = secrets.token_hex(16)
        record.name = given_name(settings, record.overrides) or _name(record.overrides, settings)
        if job:
            words = [word for word in job.name.split(" ") if not word.startswith("tracking.")]
            record.name = formatting.name(words, dict(flatten(settings)))
    if job:
        record.parent = job.parent
    record.full = settings.report == "full" or (settings.report is None and not record.parent and not job)
    record.params = _hparams(settings, dataset, layer_sizes)
    record.settings = to_dict(settings)
    record.data_sha256, record.data_source = dataset.sha256, dataset.source
    record.steps = settings.epochs * dataset.steps_per_epoch(settings.batch_size)
    return record


def _hparams(settings: Settings, dataset: Dataset, layer_sizes: list[int]) -> dict[str, str]:
    """Returns the MLflow params of a run: its settings, flattened, and its data."""
    flat = {
        key: without_password(str(value))
        for key, value in flatten(settings)
        if key not in ("resume", *OF_MLFLOW)
        and not key.startswith("sweep.")
        and (value is not None or key not in OF_ONE_RULE)
    }
    known = {
        "layer_sizes": layer_sizes,
        "n_train": len(dataset.x_train),
        "scale": dataset.scale,
        "data_sha256": dataset.sha256,
    }
    return flat | {key: str(value) for key, value in known.items()}


def given_name(settings: Settings, overrides: list[str], is_new: bool = True) -> str:
    """Returns the name that was given to a run or a sweep; empty if it is to be named by its overrides.

    It is `run_name`, else `hydra.job.name` as typed, else, for a new run or sweep, MLFLOW_RUN_NAME.
    """
    given = [text.partition("=")[2].strip("'\"") for text in overrides if text.startswith("hydra.job.name=")]
    return settings.run_name or (given[-1] if given else os.environ.get(NAME, "") if is_new else "")


def _name(overrides: list[str], settings: Settings) -> str:
    """Returns the name of a run in the UI: its overrides without paths and the like."""
    hidden = ("dataset.path=", "tracking.", "hydra")
    shown = [text for text in overrides if not text.startswith(hidden) and not is_description(text)]
    return formatting.name(shown, dict(flatten(settings)))


def _resumed_overrides(past: RunRecord, epochs: int) -> list[str]:
    """Returns the overrides of a resumed run, with its new number of epochs."""
    if past.settings["epochs"] == epochs:
        return past.overrides
    return [text for text in past.overrides if not text.startswith("epochs=")] + [f"epochs={epochs}"]
