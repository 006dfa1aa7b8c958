"""The logged model: loaded from MLflow in a new process, as a SavedModel, and its page."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
import tensorflow as tf

from conftest import LIMIT, Run, sample
from mlp_tape.data import datasets
from mlp_tape.mlflow_backend import logged_model
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
    assert info.signature.inputs is None, "MLflow would cast the images to its dtype"
    assert "(-1, 10)" in str(info.signature.outputs) and "output" in str(info.signature.params)
    loaded = mlflow.pyfunc.load_model(f"runs:/{trained.run_id}/model")
    np.testing.assert_array_equal(loaded.input_example, DIGITS.x_test[:2])
    (version,) = client_of(trained).search_model_versions("name = 'digits'")
    assert version.run_id == trained.run_id


def test_page_of_the_model_has_params_versions_and_metrics_with_their_data_set(trained: RunRecord) -> None:
    client = client_of(trained)
    run = client.get_run(trained.run_id)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert model.params == run.data.params
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "digits", "version": 1}]
    (given,) = run.inputs.dataset_inputs
    found = {row.key: (row.value, row.dataset_name, row.dataset_digest) for row in model.metrics}
    data = (given.dataset.name, given.dataset.digest)
    assert found == {key: (trained.results[key], *data) for key in ("test/loss", "test/accuracy")}


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


def test_the_preparation_of_models_works_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run does not report its errors, as it only saves time."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    logged_model.warm_up()
    assert not list(tmp_path.iterdir())
