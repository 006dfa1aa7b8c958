"""Runs as recorded in MLflow, for comparison."""

from collections.abc import Iterable
from dataclasses import dataclass

import mlflow
from mlflow.entities import Run

from mlp_tape.mlflow_backend.store import ask, jobs_of, run_of


@dataclass(frozen=True)
class Past:
    """A run as recorded in MLflow.

    Attributes:
        name: name in the UI.
        run_id: MLflow run id.
        status: MLflow status.
        seconds: duration; 0 while it is running.
        params: MLflow params.
        curves: pairs of step and value, by metric key.
        experiment_id: MLflow experiment id.
    """

    name: str
    run_id: str
    status: str
    seconds: float
    params: dict[str, str]
    curves: dict[str, list[tuple[int, float]]]
    experiment_id: str


def pasts(uri: str, run_id: str, keys: Iterable[str]) -> list[Past]:
    """Returns a run, or the child runs of a sweep; an empty list if there is no such run.

    Args:
        uri: URI of the store.
        run_id: MLflow run id of the run or the sweep.
        keys: metric keys of the curves.
    """

    def found(client: mlflow.MlflowClient) -> list[Past]:
        run = run_of(client, run_id)
        return [_past(client, each, keys) for each in jobs_of(client, run)] if run else []

    return ask(uri, found)


def _past(client: mlflow.MlflowClient, run: Run, keys: Iterable[str]) -> Past:
    curves = {
        key: sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, key))
        for key in keys
    }
    seconds = (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else 0.0
    name, params = str(run.info.run_name), run.data.params
    # A param that a resumed run has changed stands in a tag, as MLflow does not allow to change params.
    params = {key: run.data.tags.get(key, value) for key, value in params.items()}
    return Past(name, run.info.run_id, run.info.status, seconds, params, curves, run.info.experiment_id)
