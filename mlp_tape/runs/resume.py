"""Resuming: finds the run that `resume=` refers to, and merges its settings with the command line."""

import dataclasses
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlp_tape.config import validation
from mlp_tape.config.settings import (
    FREE,
    OF_MLFLOW,
    TO_THE_END,
    Settings,
    TrackingSettings,
    defaults_with,
    differences,
    flatten,
)
from mlp_tape.errors import BrokenFileError, ConfigError, TrackingError
from mlp_tape.storage import lock, run_paths, run_record
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system.formatting import count
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import may_exist, recorded_uri, resolve_uri

PARENTS = ("outputs", "multirun")


def find(which: str, uri: str, kind: str = "run") -> Path:
    """Returns the directory of a run or a sweep.

    Args:
        which: its MLflow run id, its directory, or `last`, the one started last among those that are not
            running below `outputs/` and `multirun/` in the current directory.
        uri: URI of the MLflow store in which to look up an id that is not found there.
        kind: `run` or `sweep`.

    Raises:
        ConfigError: it was not found, or is not of this kind.
        BrokenFileError: its record is damaged.
    """
    key = "resume" if kind == "run" else "sweep.resume"
    found = here(which, kind)
    if found:
        return _of_kind(found, kind)
    if which == "last":
        raise ConfigError(f"{key}=last: no {kind} below {Path.cwd()}", f"type {key}=RUN_ID, or a directory")
    recorded = None
    if may_exist(uri):
        from mlp_tape.mlflow_backend import store  # imports MLflow

        recorded = store.directory_of(uri, which)
    if recorded is None or not (recorded / run_paths.RECORD).exists():
        where = (
            f"its directory {recorded} does not exist"
            if recorded
            else f"no such {kind} below {Path.cwd()}, nor in MLflow"
        )
        raise ConfigError(f"{key}={which}: {where}", f"type {key}=DIRECTORY, or {key}=last")
    return _of_kind(run_record.read(recorded), kind)


def here(which: str, kind: str | None = None) -> RunRecord | None:
    """Returns the record of a run or a sweep on this machine; None if it is not found.

    Args:
        which: MLflow run id, directory, or `last`, as in `find`.
        kind: kind to which `last` refers, `run` or `sweep`; None for either.
    """
    if (Path(which) / run_paths.RECORD).exists():
        return run_record.read(Path(which).absolute())
    for run in sorted(_known(), key=lambda run: run.began, reverse=True):
        if run.run_id == which:
            return run
        meant = which == "last" and kind in (None, run.kind)
        if meant and not lock.is_held(run.directory):
            return run
    return None


def _of_kind(found: RunRecord, kind: str) -> Path:
    if found.kind != kind:
        raise ConfigError(f"{found.run_id or found.directory} is a {found.kind}", f"type {found.resume}")
    return found.directory


def _known() -> list[RunRecord]:
    """Returns the records of all runs below the current directory."""
    found = []
    for parent in PARENTS:
        for directory in run_record.directories(Path.cwd() / parent):
            try:
                found.append(run_record.read(directory))
            except BrokenFileError:  # reported when it is requested by its directory
                continue
    return found


def typed_keys(names: Iterable[str]) -> set[str]:
    """Returns the keys of the settings that a command line sets, directly, by group or by experiment.

    Args:
        names: left-hand side of each override, such as `lr`, `dataset` or `experiment`.
    """
    known = [key for key, _ in flatten(Settings())]
    typed: set[str] = set()
    for name in names:
        below = {key for key in known if f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}.")}
        others = {key for key in known if not key.startswith(FREE)}
        typed |= below or (set() if name.startswith("hydra") else others)
    return typed


def recorded(run: RunRecord) -> Settings:
    """Returns the settings that are recorded for a run, without passwords."""
    return of_values(run.settings)


def of_values(values: Mapping[str, Any]) -> Settings:
    """Returns settings from nested values as a run records them.

    Settings that the version that recorded them did not have get their defaults.
    """
    defaults = OmegaConf.create(defaults_with(values))
    defaults.merge_with({key: value for key, value in values.items() if key not in OF_MLFLOW})
    as_written = {key: values[key] for key in OF_MLFLOW if key in values}  # may contain ${
    return dataclasses.replace(validation.parse(defaults), **as_written)


def settings(directory: Path, requested: Settings, typed: Container[str]) -> Settings:
    """Returns the settings with which to resume a run: its own, with those that may change as typed.

    Args:
        directory: directory of the run.
        requested: settings from the command line.
        typed: keys of the settings that the command line sets, as returned by `typed_keys`.

    Raises:
        ConfigError: a typed setting must not change for this run, or the run has already finished.
        BrokenFileError: the record of the run is damaged.
    """
    run = run_record.read(directory)
    old = recorded(run)
    different = differences(old, requested, typed)
    if different:
        raise ConfigError(
            "; ".join(different), f"leave it out, or start a new run without resume={requested.resume}"
        )
    epochs = requested.epochs if "epochs" in typed else old.epochs
    if run.status == "FINISHED" and epochs <= old.epochs and (run.sent or not run.store):
        raise ConfigError(
            f"the run in {directory} has finished its {count(old.epochs, 'epoch')}",
            f"to train it further, type epochs=... above {old.epochs}",
        )
    if epochs != old.epochs and old.schedule.name in TO_THE_END:
        name, planned = old.schedule.name, count(old.epochs, "epoch")
        raise ConfigError(
            f"epochs={epochs}, but the run's schedule={name} ends with its {planned}",
            f"leave it out, or start a new run without resume={requested.resume}",
        )
    path = requested.dataset.path if "dataset.path" in typed else old.dataset.path
    return dataclasses.replace(
        old,
        epochs=epochs,
        resume=str(directory),
        tracking=_tracking(old.tracking, run, requested.tracking, typed),
        run_name=requested.run_name or old.run_name,
        tags=old.tags | requested.tags,
        note=requested.note or old.note,
        checkpoint=requested.checkpoint if "checkpoint.every_steps" in typed else old.checkpoint,
        dataset=dataclasses.replace(old.dataset, path=path),
    )


def _tracking(
    old: TrackingSettings, run: RunRecord, requested: TrackingSettings, typed: Container[str]
) -> TrackingSettings:
    """Returns the tracking settings as typed, else as recorded for the run."""
    values = {key: getattr(requested if f"tracking.{key}" in typed else old, key) for key, _ in flatten(old)}
    if not values["enabled"]:
        return TrackingSettings(**values)
    if values["uri"] is None or "tracking.uri" not in typed:
        values["uri"] = recorded_uri(run) or None
    elif run.run_id and not may_exist(resolve_uri(requested)):  # it would be created
        raise TrackingError(
            f"{without_password(str(values['uri']))} does not exist, and does not have the run {run.run_id}",
            f"leave tracking.uri out; the run is recorded in {run.store}",
        )
    return TrackingSettings(**values)
