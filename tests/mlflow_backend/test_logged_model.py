"""Use of the model: loaded from MLflow in a new process, served over HTTP, and as a SavedModel."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import tensorflow as tf

from conftest import LIMIT, Run, responds, sample, wait_until
from mlp_tape.data import datasets
from mlp_tape.storage.run_record import RunRecord, read
from mlp_tape.tensors import network

DIGITS = datasets.load("digits")


@pytest.fixture(scope="module")
def trained(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    directory = tmp_path_factory.mktemp("trained")
    done = run_py(directory, "dataset=digits", "epochs=5", "lr=0.5", "tracking.register_as=digits")
    assert done.returncode == 0, done.stderr
    (found,) = directory.glob("outputs/*/*")
    return read(found)


@pytest.fixture(autouse=True)
def in_its_store(trained: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the tracking URI for `runs:/...`, for one test."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.uri)


def client_of(run: RunRecord) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(run.uri)


FRESH = """
import sys
import mlflow
import numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
data = np.load(sys.argv[3])
scores = model.predict(data["x_test"])
assert scores.dtype == np.float32 and scores.shape == (len(data["x_test"]), 10)
assert "tensorflow" not in sys.modules and "mlp_tape" not in sys.modules
print(float(np.mean(scores.argmax(axis=1) == data["y_test"])))
"""


@pytest.mark.parametrize("what", sample(["runs:/{}/model", "models:/digits/1"], "runs:/{}/model"))
def test_model_loaded_in_a_new_process_has_the_logged_accuracy(
    trained: RunRecord, tmp_path: Path, what: str
) -> None:
    np.savez(tmp_path / "test.npz", x_test=DIGITS.x_test, y_test=DIGITS.y_test)
    command = [
        sys.executable,
        "-c",
        FRESH,
        trained.uri,
        what.format(trained.run_id),
        str(tmp_path / "test.npz"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    logged = client_of(trained).get_run(trained.run_id).data.metrics["test/accuracy"]
    assert float(done.stdout) == logged == trained.results["test/accuracy"]


def test_saved_model_is_bit_identical_to_the_network_computed_eagerly(trained: RunRecord) -> None:
    folder = mlflow.artifacts.download_artifacts(f"runs:/{trained.run_id}/saved_model")
    loaded = tf.saved_model.load(folder)
    with np.load(trained.directory / "weights.npz") as archive:
        params = network.as_params(dict(archive))
    for n in (1, 3, len(DIGITS.x_test)):
        images = DIGITS.x_test[:n]
        rows = network.to_float(tf.constant(images), DIGITS.scale)
        expected = network.forward(params, rows, tf.nn.relu).numpy()
        served = loaded.signatures["serving_default"](tf.constant(images))
        np.testing.assert_array_equal(loaded(images).numpy(), expected)
        np.testing.assert_array_equal(loaded(images.reshape(n, -1)).numpy(), expected)
        np.testing.assert_array_equal(next(iter(served.values())).numpy(), expected)


def test_model_has_a_signature_an_example_and_a_version(trained: RunRecord) -> None:
    info = mlflow.models.get_model_info(f"runs:/{trained.run_id}/model")
    assert info.signature is not None
    assert "uint8" in str(info.signature.inputs) and "(-1, 8, 8)" in str(info.signature.inputs)
    loaded = mlflow.pyfunc.load_model(f"runs:/{trained.run_id}/model")
    np.testing.assert_array_equal(loaded.input_example, DIGITS.x_test[:2])
    (version,) = client_of(trained).search_model_versions("name = 'digits'")
    assert version.run_id == trained.run_id


def test_images_of_another_shape_or_dtype_are_rejected(trained: RunRecord) -> None:
    loaded = mlflow.pyfunc.load_model(f"runs:/{trained.run_id}/model")
    for images in (DIGITS.x_test[:, :7], DIGITS.x_test / 16):
        with pytest.raises(mlflow.MlflowException, match="does not match expected"):
            loaded.predict(images)


def test_description_states_network_accuracy_and_usage(trained: RunRecord) -> None:
    run = client_of(trained).get_run(trained.run_id)
    page = run.data.tags["mlflow.note.content"]
    for text in (
        "64 → 256 → 128 → 10",
        "**digits**",
        f"**Test accuracy {trained.results['test/accuracy']:.4f}**",
        trained.command,
        f'load_model("runs:/{trained.run_id}/model")',
        f"mlflow models serve --env-manager local -m runs:/{trained.run_id}/model",
    ):
        assert text in page
    (given,) = run.inputs.dataset_inputs
    assert given.dataset.name == "digits"
    assert trained.data_sha256.startswith(given.dataset.digest)
    assert json.loads(given.dataset.profile) == {"n_train": 1437, "sha256": trained.data_sha256}


@pytest.mark.long
@pytest.mark.concurrency
def test_description_of_a_failed_run_states_the_failure(run_py: Run, tmp_path: Path) -> None:
    assert run_py(tmp_path, "dataset=digits", "lr=1e20").returncode == 1
    (directory,) = tmp_path.glob("outputs/*/*")
    run = client_of(read(directory)).get_run(read(directory).run_id)
    assert "Status FAILED: DivergenceError" in run.data.tags["mlflow.note.content"]
    assert "load_model" not in run.data.tags["mlflow.note.content"]


@pytest.mark.long
def test_served_model_has_the_predictions_of_the_run(trained: RunRecord, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    bin_directory = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": trained.uri,
    }
    command = [
        str(bin_directory / "mlflow"),
        "models",
        "serve",
        "--env-manager",
        "local",
        "--port",
        str(port),
    ]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "-m", f"runs:/{trained.run_id}/model"],
            env=environment,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until("the server", lambda: responds(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log"))
        answer = _post(f"http://127.0.0.1:{port}/invocations", {"inputs": DIGITS.x_test[:100].tolist()})
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(LIMIT)
    with np.load(trained.directory / "report.npz") as archive:
        expected = archive["scores"][:100]
    scores = np.asarray(answer["predictions"], np.float32)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))


def _post(url: str, what: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(what).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error
