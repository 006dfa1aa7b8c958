"""Runs that another program, such as `mlflow run`, has created, and in which a run is recorded."""

from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import LifecycleStage, Run, RunTag
from mlflow.exceptions import MlflowException

from mlp_tape.mlflow_backend.store import TOKEN, ask, run_of
from mlp_tape.storage import run_record
from mlp_tape.storage.liveness import Owner
from mlp_tape.storage.run_record import RunRecord
from mlp_tape.tracking.uri import mlflow_command


def identify(client: mlflow.MlflowClient, run: Run, record: RunRecord) -> None:
    """Gives a run that another program created the tags that identify it, except those that it has."""
    own = record.source | {TOKEN: record.token}
    new = [RunTag(key, value) for key, value in own.items() if key not in run.data.tags]
    if new and run.info.lifecycle_stage == LifecycleStage.ACTIVE:
        client.log_batch(run.info.run_id, tags=new)


def experiment_name(uri: str, experiment_id: str) -> str | None:
    """Returns the name of an experiment; None if the store does not have it."""

    def name(client: mlflow.MlflowClient) -> str | None:
        try:
            return str(client.get_experiment(experiment_id).name)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no number
                return None
            raise

    return ask(uri, name)


@dataclass(frozen=True)
class Adoptable:
    """A run of another program, such as `mlflow run`, in which a run is to be recorded.

    Attributes:
        experiment: name of its experiment.
        name: its name.
        params: its params.
        refusal: why nothing can be recorded in it; empty if it can.
        cure: what to do about that.
    """

    experiment: str
    name: str
    params: dict[str, str]
    refusal: str = ""
    cure: str = ""


def adoptable(uri: str, run_id: str) -> Adoptable | None:
    """Returns a run that another program has created; None if the store does not have it."""

    def find(client: mlflow.MlflowClient) -> Adoptable | None:
        run = run_of(client, run_id)
        if run is None:
            return None
        refusal, cure, tags = "", "", run.data.tags
        recorded = Path(tags.get("directory", "/nowhere"))
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            restore = mlflow_command(uri, f"runs restore --run-id {run_id}")
            refusal, cure = "this run was deleted", f"type {restore}"
        elif "directory" in tags and (run.data.metrics or Owner.of_tags(tags).is_alive(recorded)):
            refusal = f"this run has been recorded already, in {recorded}"
            cure = f"type {run_record.read_abandoned(recorded).resume}"
        name = str(client.get_experiment(run.info.experiment_id).name)
        return Adoptable(name, str(run.info.run_name or ""), dict(run.data.params), refusal, cure)

    return ask(uri, find)
