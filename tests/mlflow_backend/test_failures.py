"""What one part of the store refuses does not keep MLflow from receiving the rest."""

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.store.tracking.dbmodels import models as dbmodels

from conftest import LIMIT, Run, Server, ended_run, mlp_tape, runs_in, sample, wait_until
from mlp_tape.mlflow_backend import delivery, failures, uploads
from mlp_tape.mlflow_backend.failures import IncompleteError
from mlp_tape.mlflow_backend.uploads import Uploads
from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import RunRecord


def check_rows_and_status(record: RunRecord) -> mlflow.entities.Run:
    (found,) = runs_in(record.uri)
    assert (found.info.status, found.data.tags["reason"]) == (record.status, record.reason)
    rows = mlflow.MlflowClient(record.uri).get_metric_history(found.info.run_id, "train/loss")
    assert [row.step for row in rows] == list(range(100))
    return found


def cannot_be_a_folder(directory: Path) -> str:
    (directory / "file").touch()
    return f"file://{directory / 'file' / 'artifacts'}"


REFUSALS: list[tuple[Callable[[Path], str], str, str]] = [
    (lambda directory: "s3://bucket/runs", "boto3", "pip install boto3"),
    (lambda directory: "gs://bucket/runs", "google", "pip install google-cloud-storage"),
    (cannot_be_a_folder, "Not a directory", "there is a file in place of a directory"),
]


@pytest.mark.parametrize(
    ("location", "cause", "cure"),
    sample(REFUSALS, REFUSALS[2]),
    ids=["s3", "gs", "file"],
)
def test_artifact_store_that_refuses_leaves_rows_and_status_true(
    tmp_path: Path,
    location: Callable[[Path], str],
    cause: str,
    cure: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    record = ended_run(tmp_path)
    mlflow.MlflowClient(record.uri).create_experiment("mlp_tape", artifact_location=location(tmp_path))
    with pytest.raises(IncompleteError, match=r"artifact store .* did not accept config\.yaml") as refused:
        list(delivery.deliver(tmp_path, record.uri))
    assert cause in refused.value.what
    assert cure in refused.value.hint
    assert refused.value.permanent
    check_rows_and_status(record)
    assert not run_record.read(tmp_path).sent


def test_what_was_refused_is_delivered_once_the_cause_is_gone(tmp_path: Path) -> None:
    record = ended_run(tmp_path)
    client = mlflow.MlflowClient(record.uri)
    client.create_experiment("mlp_tape", artifact_location=cannot_be_a_folder(tmp_path))
    with pytest.raises(IncompleteError):
        delivery.deliver_all(tmp_path, record.uri)
    (tmp_path / "file").unlink()
    delivery.deliver_all(tmp_path, record.uri)
    found = check_rows_and_status(record)
    assert [each.path for each in client.list_artifacts(found.info.run_id)] == ["config.yaml"]
    assert run_record.read(tmp_path).sent


def test_artifact_store_that_hangs_leaves_rows_and_status_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "ANSWER", 0.1)
    over, log_artifact = threading.Event(), mlflow.MlflowClient.log_artifact

    def hanging(*arguments: Any) -> None:
        over.wait()
        log_artifact(*arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", hanging)
    record, left = ended_run(tmp_path), Uploads()
    with pytest.raises(IncompleteError, match="no answer") as refused:
        list(delivery.deliver(tmp_path, record.uri, left))
    assert not refused.value.permanent, "it may answer later"
    check_rows_and_status(record)
    over.set()

    def is_sent() -> bool:
        left.retry()
        try:
            return delivery.ENDED in delivery.deliver(tmp_path, record.uri, left)
        except IncompleteError:
            return False

    wait_until("the end of the upload", is_sent)
    assert run_record.read(tmp_path).sent


def test_rows_that_the_store_refuses_leave_status_and_artifacts_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch = mlflow.MlflowClient.log_batch

    def refusing(client: mlflow.MlflowClient, run_id: str, metrics: Any = (), **more: Any) -> None:
        if metrics:
            code = mlflow.protos.databricks_pb2.INVALID_PARAMETER_VALUE
            raise mlflow.MlflowException("no such metric", code)
        log_batch(client, run_id, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refusing)
    record = ended_run(tmp_path)
    with pytest.raises(IncompleteError, match="did not accept the metrics: no such metric"):
        delivery.deliver_all(tmp_path, record.uri)
    (found,) = runs_in(record.uri)
    assert found.info.status == "FAILED"
    client = mlflow.MlflowClient(record.uri)
    assert [each.path for each in client.list_artifacts(found.info.run_id)] == ["config.yaml"]
    monkeypatch.undo()
    delivery.deliver_all(tmp_path, record.uri)
    check_rows_and_status(record)


# Messages of databases to the second of two requests that create the same row.
SIMULTANEOUS = [
    "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, datasets.name",
    '(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "dataset_pk"',
    "(pymysql.err.IntegrityError) (1062, \"Duplicate entry '1-digits-5f3' for key 'datasets.PRIMARY'\")",
]


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (ModuleNotFoundError("No module named 'boto3'", name="boto3"), True),
        (PermissionError(13, "Permission denied", "/somewhere"), True),
        (OSError(28, "No space left on device", "/somewhere"), True),
        (OSError(30, "Read-only file system", "/somewhere"), True),
        (TimeoutError("no answer within 10 seconds"), False),
        (ConnectionError("refused"), False),
        (ConnectionRefusedError(111, "Connection refused"), False),
        (mlflow.MlflowException("the server is busy"), False),
        (mlflow.MlflowException("no", mlflow.protos.databricks_pb2.PERMISSION_DENIED), True),
        (mlflow.MlflowException("wait", mlflow.protos.databricks_pb2.REQUEST_LIMIT_EXCEEDED), False),
        (mlflow.MlflowException("wait", mlflow.protos.databricks_pb2.TEMPORARILY_UNAVAILABLE), False),
        *((mlflow.MlflowException(each, BAD_REQUEST), False) for each in SIMULTANEOUS),
        (RuntimeError("anything"), False),
        (KeyError("layer_sizes"), True),
        (json.JSONDecodeError("a proxy's page", "<html>", 0), False),
    ],
    ids=str,
)
def test_error_that_would_occur_again_is_told_from_an_outage(error: Exception, permanent: bool) -> None:
    assert failures.is_permanent(error) == permanent
    assert failures.of_files("config.yaml", "s3://bucket", error).hint


def test_runs_that_record_the_same_data_at_the_same_time_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow looks for the row of a data set and then inserts it, which fails if another run was faster."""
    uri, both_have_looked, rows = f"sqlite:///{tmp_path}/mlflow.db", threading.Barrier(2), list[Any]()
    create = dbmodels.SqlDataset.__init__

    def together(row: Any, **columns: Any) -> None:
        rows.append(row)
        if len(rows) <= 2:
            both_have_looked.wait(LIMIT)
        create(row, **columns)

    records = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        record = ended_run(tmp_path / name)
        record.data_sha256, record.uri, record.token = "5f3a", uri, name
        record.params = {"n_train": "1437", "n_test": "360", "layer_sizes": "[64, 8, 10]"}
        record.save()
        records.append(record)
    mlflow.MlflowClient(uri).create_experiment("mlp_tape")
    monkeypatch.setattr(dbmodels.SqlDataset, "__init__", together)
    with ThreadPoolExecutor(2) as pool:
        for over in [pool.submit(delivery.deliver_all, record.directory, uri) for record in records]:
            over.result()
    assert len(rows) == 2
    for record in records:
        assert run_record.read(record.directory).sent
    for run in runs_in(uri):
        assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["digits"]
        assert run.data.params["n_train"] == "1437"


def test_cure_for_a_full_disk_names_the_disk_that_is_full() -> None:
    error = OSError(28, "No space left on device", "/tmp/weights.npz", None, "/srv/artifacts/weights.npz")
    cure = failures.of_files("weights.npz", "/srv/artifacts", error).hint
    assert cure == "/srv/artifacts/weights.npz: free some space on it"


@pytest.mark.long
def test_run_says_what_the_artifact_store_refuses_and_sync_sends_it_later(
    run_py: Run, offline: dict[str, str], tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    client.create_experiment("mlp_tape", artifact_location=cannot_be_a_folder(tmp_path))
    done = run_py(tmp_path, "dataset=digits", "epochs=2", "model.hidden_sizes=[8]")
    assert done.returncode == 0, done.stderr
    told = done.stderr.split("MLflow is missing part of this run", 1)
    assert "did not accept config.yaml" in told[0], "it is told at once"
    assert "did not accept the model, config.yaml, environment.txt" in told[1]
    assert "Not a directory" in told[1]
    (found,) = runs_in(uri)
    assert found.info.status == "FINISHED"
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 24
    (tmp_path / "file").unlink()
    synced = mlp_tape(tmp_path, offline, "sync")
    assert synced.returncode == 0, synced.stdout
    assert {"config.yaml", "weights.npz", "plots"} <= {
        each.path for each in client.list_artifacts(found.info.run_id)
    }
    (model,) = client.search_logged_models([found.info.experiment_id])
    assert mlflow.pyfunc.load_model(model.artifact_location)


@pytest.mark.long
def test_registry_that_refuses_a_model_leaves_the_model_and_the_rest(
    run_py: Run, server: Server, tmp_path: Path
) -> None:
    """A server refuses to register a model whose files it cannot reach."""
    done = run_py(
        tmp_path,
        "dataset=digits",
        "epochs=1",
        "model.hidden_sizes=[8]",
        "tracking.register_as=mine",
        MLFLOW_REGISTRY_URI=server.url,
    )
    assert done.returncode == 0, done.stderr
    assert "model registry did not accept mine: " in done.stderr
    assert "Invalid model version source" in done.stderr
    assert "check MLFLOW_REGISTRY_URI" in done.stderr
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (found,) = runs_in(uri)
    assert found.info.status == "FINISHED"
    client = mlflow.MlflowClient(uri)
    assert "weights.npz" in {each.path for each in client.list_artifacts(found.info.run_id)}
    (model,) = client.search_logged_models([found.info.experiment_id])
    assert mlflow.pyfunc.load_model(model.artifact_location)
