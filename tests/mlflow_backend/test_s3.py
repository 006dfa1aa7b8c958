"""Runs on a PostgreSQL database whose artifacts are on an S3-compatible server, which may be stopped."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from postgres import Postgres

from conftest import (
    SMALL_PIPE,
    Run,
    Server,
    mlp_tape,
    responds,
    runs_in,
    start_program,
    wait_for_exit,
    wait_until,
)

pytestmark = [pytest.mark.long]
SMALL = ["dataset=digits", "model.hidden_sizes=[8]"]
FILES = {"config.yaml", "environment.txt", "plots", "saved_model", "weights.npz"}


class S3:
    """A server with the interface of S3 on the loopback interface, which forgets all when it is stopped."""

    def __init__(self, directory: Path) -> None:
        if importlib.util.find_spec("moto") is None:
            pytest.skip("pip install 'moto[s3,server]' to run this test")
        self.url, self._log = Server(directory).url, directory / "s3.log"
        self.environment = {
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Starts the server, and creates the bucket `runs`."""
        import boto3

        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until("the server", lambda: responds(f"{self.url}/moto-api/", self._process, self._log))
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=self.url, **keys).create_bucket(Bucket="runs")

    def stop(self) -> None:
        """Stops the server."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def s3(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    for key, value in server.environment.items():
        monkeypatch.setenv(key, value)
    server.start()
    yield server
    server.stop()


def artifacts(client: mlflow.MlflowClient, run_id: str) -> set[str]:
    return {each.path for each in client.list_artifacts(run_id)}


def test_artifacts_are_on_s3_and_an_interruption_of_it_loses_nothing(
    run_py: Run, offline: dict[str, str], postgres: Postgres, s3: S3, tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(postgres.uri)
    client.create_experiment("mlp_tape", artifact_location="s3://runs/mlp_tape")
    environment = offline | s3.environment | {"MLFLOW_TRACKING_URI": postgres.uri}
    done = run_py(tmp_path, *SMALL, "epochs=2", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    (first,) = runs_in(postgres.uri)
    assert artifacts(client, first.info.run_id) >= FILES
    (model,) = client.search_logged_models([first.info.experiment_id])
    assert mlflow.pyfunc.load_model(model.artifact_location)

    further = [*SMALL, "epochs=600", "tracking.patience=5"]
    program = start_program(tmp_path, environment, "epoch 1 ", *further, pipe=SMALL_PIPE)
    s3.stop()
    output = wait_for_exit(program)
    assert program.returncode == 0, output
    assert "the artifact store s3://runs/mlp_tape/" in output
    second = next(run for run in runs_in(postgres.uri) if run.info.run_id != first.info.run_id)
    assert second.info.status == "FINISHED"
    rows = client.get_metric_history(second.info.run_id, "train/loss")
    assert [row.step for row in rows] == list(range(600 * 12))

    s3.start()
    synced = mlp_tape(tmp_path, environment, "sync")
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert artifacts(client, second.info.run_id) >= FILES
    again = mlp_tape(tmp_path, environment, "sync")
    assert again.stdout == "2 runs, nothing to send\n"


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"location": "s3://nothing/x"}, "check that it exists"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "set AWS_ACCESS_KEY_ID"),
    ],
    ids=["no bucket", "no credentials"],
)
def test_what_is_wrong_with_s3_is_said(
    change: dict[str, str], cure: str, offline: dict[str, str], s3: S3, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    location = change.pop("location", "s3://runs/x")
    mlflow.MlflowClient(uri).create_experiment("mlp_tape", artifact_location=location)
    environment = {key: value for key, value in (s3.environment | change).items() if value}
    done = mlp_tape(tmp_path, offline | environment | {"AWS_EC2_METADATA_DISABLED": "true"}, "doctor")
    assert done.returncode == 1
    assert cure in done.stdout
