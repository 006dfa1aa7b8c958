"""The views that MLflow's UI opens have loss and accuracy first, and what was swept as columns."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Metric, Param

from mlp_tape.mlflow_backend import ui_views
from mlp_tape.storage.delivery_record import DeliveryRecord
from mlp_tape.storage.run_record import RunRecord

TAG = "mlflow.sharedViewState."
OF_TRAINING = ["train/loss", "train/lr", "grads/w1/norm", "params/w2/norm", "params/w1/norm", "units/h1/dead"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    """The client of a store with an experiment, whose id is 1."""
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('views') / 'mlflow.db'}")
    assert client.create_experiment("mlp_tape") == "1"
    return client


def record_run(client: mlflow.MlflowClient, kind: str, metrics: list[str], parent: str = "") -> RunRecord:
    """Returns the record of a run that the store has, with metrics."""
    run = client.create_run("1", tags={"mlflow.parentRunId": parent} if parent else {})
    values = [Metric(key, 0.5, 1, step) for key in metrics for step in (0, 1)]
    client.log_batch(run.info.run_id, metrics=values, params=[Param("lr", "0.1")])
    found = RunRecord(Path("/nowhere"), kind=kind, created=1.7e9)
    found.delivery = DeliveryRecord(experiment_id="1", run_id=run.info.run_id)
    return found


def view_of(client: mlflow.MlflowClient, record: RunRecord) -> dict[str, Any]:
    key = f"{TAG}{int(record.created):08x}-{record.run_id}"
    text = client.get_experiment("1").tags[key]
    return dict(json.loads(zlib.decompress(base64.b64decode(text.removeprefix("deflate;")))))


def sections(view: dict[str, Any]) -> dict[str, list[str]]:
    """Returns the metrics of each section, in order."""
    found: dict[str, list[str]] = {each["uuid"]: [] for each in view["compareRunSections"]}
    for chart in view["compareRunCharts"]:
        found[chart["metricSectionId"]].append(chart["metricKey"])
    return found


def test_view_of_a_run_has_every_metric_once_and_the_results_first(store: mlflow.MlflowClient) -> None:
    results = ["test/loss", "test/accuracy", "validation/loss", "validation/accuracy"]
    record = record_run(store, "run", [*OF_TRAINING, *results, "system/cpu", "my/own"])
    assert ui_views.share(store, record)
    view = view_of(store, record)
    assert view["searchFilter"] == f"attributes.run_id = '{record.run_id}'"
    assert list(sections(view).items()) == [
        (
            "Loss and accuracy",
            ["train/loss", "test/accuracy", "test/loss", "validation/accuracy", "validation/loss"],
        ),
        ("Norms of parameters", ["params/w1/norm", "params/w2/norm"]),
        ("Norms of gradients", ["grads/w1/norm"]),
        ("Learning rate and units", ["my/own", "train/lr", "units/h1/dead"]),
    ]


@pytest.mark.parametrize(
    ("settings", "chosen_by", "ascending"),
    [
        ({"choose_by": "validation/accuracy"}, ["validation/accuracy"], False),
        ({"choose_by": "test/accuracy"}, ["test/accuracy"], False),
        ({"choose_by": "validation/loss"}, ["validation/loss"], True),
        ({"objectives": ["seconds", "validation/loss"]}, ["validation/loss"], True),
        ({"objectives": ["validation/accuracy", "test/loss"]}, ["validation/accuracy", "test/loss"], False),
        ({"objectives": ["parameters", "seconds"]}, ["test/accuracy"], False),
        ({}, ["test/accuracy"], False),
    ],
    ids=str,
)
def test_view_of_a_sweep_lists_its_jobs_by_the_metric_that_ranks_them(
    settings: dict[str, Any], chosen_by: list[str], ascending: bool, store: mlflow.MlflowClient
) -> None:
    sweep = record_run(store, "sweep", ["sweep/finished"])
    sweep.swept, sweep.settings = ["lr", "model.hidden_sizes"], {"sweep": settings}
    validation = ["validation/accuracy", "validation/loss"]
    record_run(store, "run", [*OF_TRAINING, "test/accuracy", "test/loss", *validation], parent=sweep.run_id)
    assert ui_views.share(store, sweep)
    view = view_of(store, sweep)
    columns = [f"metrics.`{key.replace('validation/', 'validation/best_')}`" for key in chosen_by]
    assert view["selectedColumns"] == [*columns, "params.`lr`", "params.`model.hidden_sizes`"]
    assert (view["orderByKey"], view["orderByAsc"]) == (columns[0], ascending)
    assert sections(view)["Loss and accuracy"][: len(chosen_by)] == chosen_by
    assert len(store.search_runs(["1"], view["searchFilter"])) == 1


def test_sweep_without_a_finished_job_has_a_view(store: mlflow.MlflowClient) -> None:
    sweep = record_run(store, "sweep", [])
    assert ui_views.share(store, sweep)
    assert view_of(store, sweep)["orderByKey"] == "metrics.`test/accuracy`"


def test_views_of_other_people_are_kept_and_ours_is_written_once(store: mlflow.MlflowClient) -> None:
    key, record = f"{TAG}{'a' * 64}", record_run(store, "run", ["train/loss"])
    store.set_experiment_tag("1", key, "theirs")
    assert ui_views.share(store, record)
    before = store.get_experiment("1").tags
    assert ui_views.share(store, record)
    assert store.get_experiment("1").tags == before
    assert before[key] == "theirs"


def test_views_of_the_newest_runs_are_kept(
    store: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui_views, "MOST", 3)
    theirs = f"{TAG}{'0' * 64}"
    store.set_experiment_tag("1", theirs, "theirs")
    keys = []
    for created in (5.0, 4.0, 3.0, 2.0, 6.0):
        record = record_run(store, "run", ["train/loss"])
        record.created = 1.8e9 + created
        keys.append(TAG + ui_views.share(store, record))
    tags = store.get_experiment("1").tags
    assert [key in tags for key in keys] == [True, True, False, False, True]
    assert theirs in tags


def test_store_that_refuses_the_view_is_reported(store: mlflow.MlflowClient) -> None:
    """Such as one in which tags of the experiment are write-protected, or whose experiment was deleted."""
    record = record_run(store, "run", ["train/loss"])
    experiment = store.create_experiment("deleted")
    store.delete_experiment(experiment)
    record.delivery.experiment_id = experiment
    assert ui_views.share(store, record) == ""


def test_view_of_a_network_of_fifty_layers_fits_into_a_tag(store: mlflow.MlflowClient) -> None:
    names = [f"{kind}{i}" for i in range(1, 52) for kind in "wb"]
    metrics = [f"{what}/{name}/norm" for what in ("params", "grads") for name in names]
    record = record_run(store, "run", [*OF_TRAINING, *metrics[:400]])
    assert ui_views.share(store, record)
    assert sum(map(len, sections(view_of(store, record)).values())) == len({*OF_TRAINING, *metrics[:400]})
