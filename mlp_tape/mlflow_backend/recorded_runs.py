"""What MLflow has of a run: its rows, and its files as a copy; and a tag for what was found about it."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlp_tape.mlflow_backend.store import ask, jobs_of, run_of
from mlp_tape.storage.journal import Row


@dataclass(frozen=True)
class Kept:
    """A run as MLflow has it.

    Attributes:
        run_id: MLflow run id.
        name: name in the UI.
        status: MLflow status.
        params: MLflow params.
        tags: tags.
        rows: all metric rows, of one key after the other, by step; of a step there may be several.
        artifacts: names of the files and directories at the top of the artifacts.
        experiment: name of the experiment.
        data_source: path of the data set; empty if it is not known.
    """

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    rows: list[Row]
    artifacts: frozenset[str]
    experiment: str
    data_source: str


def ids(uri: str, run_id: str) -> list[str]:
    """Returns the id of a run, or those of the jobs of a sweep; empty if the store has no such run."""

    def found(client: mlflow.MlflowClient) -> list[str]:
        run = run_of(client, run_id)
        return [each.info.run_id for each in jobs_of(client, run)] if run else []

    return ask(uri, found)


def read(uri: str, run_id: str, names: list[str], copies: Path) -> Kept:
    """Returns a run, and copies files of it.

    Args:
        uri: URI of the store.
        run_id: MLflow run id, which the store must have.
        names: names of artifacts to copy, as far as they exist.
        copies: directory for the copies.
    """

    def found(client: mlflow.MlflowClient) -> Kept:
        run = client.get_run(run_id)
        artifacts = frozenset(each.path for each in client.list_artifacts(run_id))
        for name in artifacts.intersection(names):
            client.download_artifacts(run_id, name, str(copies))
        experiment = client.get_experiment(run.info.experiment_id)
        return Kept(
            run_id,
            str(run.info.run_name),
            run.info.status,
            run.data.params,
            run.data.tags,
            _rows(client, run),
            artifacts,
            experiment.name,
            _data_source(run),
        )

    return ask(uri, found)


def _data_source(run: Run) -> str:
    """Returns the path of the data set of a run, as `description.dataset` records it."""
    for each in run.inputs.dataset_inputs if run.inputs else ():
        with contextlib.suppress(ValueError, AttributeError):  # recorded by another program
            uri = str(json.loads(each.dataset.source).get("uri", ""))
            return unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri
    return ""


def _rows(client: mlflow.MlflowClient, run: Run) -> list[Row]:
    return [
        Row(key, row.step, float(row.value), row.timestamp)
        for key in sorted(run.data.metrics)
        for row in sorted(
            client.get_metric_history(run.info.run_id, key), key=lambda row: (row.step, row.timestamp)
        )
    ]


def set_tags(uri: str, run_id: str, tags: dict[str, str]) -> None:
    """Sets tags of a run, if the store still has it."""

    def work(client: mlflow.MlflowClient) -> None:
        with contextlib.suppress(MlflowException):
            for key, value in tags.items():
                client.set_tag(run_id, key, value)

    ask(uri, work)
