"""Where MLflow records a run, as set, as in MLflow's environment variables, or by default."""

import dataclasses
import os
import re
from dataclasses import dataclass, field
from typing import Any

from mlp_tape.config.settings import DEFAULT_EXPERIMENT, FREE, RUN_NAME, Settings, TrackingSettings
from mlp_tape.errors import ConfigError, TrackingError
from mlp_tape.runs.metadata import NAME, given_name
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.system.redaction import without_password
from mlp_tape.tracking.uri import (
    check_reachable,
    default_uri,
    may_exist,
    recorded_uri,
    resolve_uri,
)

URI, REGISTRY, RUN = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"
EXPERIMENT, EXPERIMENT_ID = "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"


@dataclass(frozen=True)
class Destination:
    """Where MLflow records a run or a sweep.

    Attributes:
        tracking: tracking settings, with the experiment.
        line: describes the destination; empty if it is the default.
        adopts: id of the run of MLFLOW_RUN_ID, in which MLflow records the run; empty if it creates one.
        name: name of that run.
        params: params of that run.
    """

    tracking: TrackingSettings
    line: str = ""
    adopts: str = ""
    name: str = ""
    params: dict[str, str] = field(default_factory=dict)

    def prepare(self, record: RunRecord, settings: Settings) -> None:
        """Lets a new run be recorded in the one of MLFLOW_RUN_ID, if there is one.

        Raises:
            ConfigError: that has other params, which cannot be changed.
        """
        if not self.adopts:
            return
        record.adopts, record.is_named = self.adopts, True
        record.name = given_name(settings, record.overrides) or self.name
        for key, value in record.params.items():
            there = self.params.get(key, value)
            if (key == "epochs" or not key.startswith(FREE)) and _meaning(there) != _meaning(value):
                raise ConfigError(
                    f"{key}={value}, but the run of {RUN} has the param {key}={there}, which cannot change",
                    f"type {key}={there}, or unset {RUN} to create a new run",
                )


def destination(settings: Settings, past: RunRecord | None, overrides: list[str]) -> Destination:
    """Returns where MLflow is to record a run or a sweep.

    Args:
        settings: settings.
        past: record of the run or the sweep to resume, which continues where it is; None for a new one.
        overrides: overrides as typed.

    Raises:
        ConfigError: what is typed contradicts the environment, or one variable another.
        TrackingError: the store cannot be opened, or does not have the run or the experiment.
    """
    tracking = settings.tracking
    if not tracking.enabled:
        return Destination(
            dataclasses.replace(tracking, experiment=tracking.experiment or DEFAULT_EXPERIMENT)
        )
    _check_registry(tracking)
    if past and past.store:
        return _of_past(tracking, past)
    run_id, name = os.environ.get(RUN, ""), given_name(settings, overrides)
    if not name.isprintable() or len(name) > RUN_NAME:
        raise ConfigError(
            f"{NAME}={name!r}: expected a line of up to {RUN_NAME} characters", "type run_name=..."
        )
    if run_id:
        found = _adopted(tracking, run_id)
        tracking = dataclasses.replace(tracking, experiment=found.experiment)
        line = _line(tracking, "", name or found.name, RUN)
        return Destination(tracking, line, run_id, found.name, found.params)
    experiment, variable = tracking.experiment, ""
    if experiment is None:
        experiment, variable = _experiment_of_environment(resolve_uri(tracking))
    tracking = dataclasses.replace(tracking, experiment=experiment)
    return Destination(
        tracking, _line(tracking, variable, name, NAME if name == os.environ.get(NAME) else "")
    )


def of_job(tracking: TrackingSettings, sweep: RunRecord) -> TrackingSettings:
    """Returns the tracking settings of a job, which is recorded where its sweep is, unless set otherwise."""
    if tracking.uri is None and tracking.enabled and sweep.store:
        tracking = _continued(tracking, sweep)
    return dataclasses.replace(tracking, experiment=tracking.experiment or sweep.experiment)


def _of_past(tracking: TrackingSettings, past: RunRecord) -> Destination:
    run_id, known = os.environ.get(RUN), past.run_id or past.adopts
    if run_id and run_id != known:
        raise ConfigError(
            f"{RUN}={run_id}, but the {past.kind} to resume is {known or past.directory}",
            f"unset {RUN}, or leave out {'sweep.' * (past.kind == 'sweep')}resume=...",
        )
    if past.kind == "sweep" and (past.run_id or tracking.uri is None):  # `resume.settings` does it for a run
        tracking = _continued(tracking, past)
    tracking = dataclasses.replace(tracking, experiment=tracking.experiment or past.experiment)
    return Destination(tracking, _line(tracking))


def _check_registry(tracking: TrackingSettings) -> None:
    """Raises TrackingError if the model is to be registered in a registry that does not respond."""
    registry = os.environ.get(REGISTRY)
    if not tracking.register_as or not registry:
        return
    try:
        check_reachable(registry)
    except TrackingError as error:
        hint = f"set another {REGISTRY}, or leave out tracking.register_as"
        raise TrackingError(f"{REGISTRY}: {error.what}", hint) from error


def _continued(tracking: TrackingSettings, run: RunRecord) -> TrackingSettings:
    """Returns the settings with the store that has a run, unless they refer to it already."""
    uri = recorded_uri(run)
    return tracking if resolve_uri(tracking) == uri else dataclasses.replace(tracking, uri=uri)


def _adopted(tracking: TrackingSettings, run_id: str) -> Any:
    """Returns the run of MLFLOW_RUN_ID, as `adoption.Adoptable`."""
    uri, found = resolve_uri(tracking), None
    if may_exist(uri):
        from mlp_tape.mlflow_backend import adoption  # imports MLflow

        found = adoption.adoptable(uri, run_id)
    if found is None:
        raise TrackingError(
            f"{RUN}={run_id}: MLflow at {without_password(uri)} has no such run",
            f"set {URI} to the store that has it, or unset {RUN} to create a new run",
        )
    if found.refusal:
        raise TrackingError(
            f"{RUN}={run_id}: {found.refusal}", f"{found.cure}, or unset {RUN} to create a new run"
        )
    if tracking.experiment not in (None, found.experiment):
        raise ConfigError(
            f"tracking.experiment={tracking.experiment}, but the run of {RUN} is in {found.experiment}",
            f"leave it out, or unset {RUN} to create a new run",
        )
    return found


def _experiment_of_environment(uri: str) -> tuple[str, str]:
    """Returns the name of the experiment, and the variable that names it; empty for the default."""
    name, experiment_id = os.environ.get(EXPERIMENT, "").strip(), os.environ.get(EXPERIMENT_ID)
    if not experiment_id:
        return (name, EXPERIMENT) if name else (DEFAULT_EXPERIMENT, "")
    found = None
    if may_exist(uri):
        from mlp_tape.mlflow_backend import adoption  # imports MLflow

        found = adoption.experiment_name(uri, experiment_id)
    if found is None:
        raise TrackingError(
            f"{EXPERIMENT_ID}={experiment_id}: MLflow at {without_password(uri)} has no such experiment",
            f"unset {EXPERIMENT_ID}, or type tracking.experiment=NAME",
        )
    if name not in ("", found):
        raise ConfigError(
            f"{EXPERIMENT}={name}, but {EXPERIMENT_ID}={experiment_id} is {found}",
            f"unset one of them, or type tracking.experiment={name}",
        )
    return found, EXPERIMENT_ID


def _line(tracking: TrackingSettings, variable: str = "", name: str = "", named_by: str = "") -> str:
    """Describes a destination; empty if it is the default.

    Args:
        tracking: tracking settings, with the experiment.
        variable: environment variable that names the experiment; empty if none does.
        name: name of the run; empty if it has only the one made from its overrides.
        named_by: environment variable that names the run; empty if none does.
    """
    uri = resolve_uri(tracking)
    if (uri, tracking.experiment, name) == (default_uri(), DEFAULT_EXPERIMENT, ""):
        return ""
    store = without_password(uri), URI if tracking.uri is None and os.environ.get(URI) else ""
    parts = [("mlflow", *store), ("experiment", tracking.experiment, variable), ("run", name, named_by)]
    shown = [f"{what} {value}{f' ({by})' if by else ''}" for what, value, by in parts if value]
    return ", ".join(shown)


def _meaning(param: str) -> Any:
    """Returns what is equal for params that differ in spelling alone; `mlflow run` quotes some of them."""
    plain = re.sub(r"[\s'\"]", "", param).lower()
    try:
        return float(plain)
    except ValueError:
        return "none" if plain == "null" else plain
