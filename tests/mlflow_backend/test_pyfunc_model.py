"""The model answers the same however it is asked, and refuses images such as it was not trained on."""

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from conftest import LIMIT, Run, responds, wait_until
from mlp_tape.data import datasets
from mlp_tape.data.datasets import Dataset
from mlp_tape.mlflow_backend.pyfunc_model import TapeModel, nearest_probabilities, softmax
from mlp_tape.reports import run_report, saved_model
from mlp_tape.storage.run_record import RunRecord, read
from mlp_tape.tensors.scale import Scale

DIGITS = datasets.load("digits")
BIN = Path(sys.executable).parent
DTYPES = ("uint8", "int32", "int64", "float32", "float64")
CSV = "text/csv"


def as_array(images: Any) -> Any:
    return images


def as_rows(images: Any) -> Any:
    return images.reshape(len(images), int(np.prod(images.shape[1:])))


def as_table(images: Any) -> pd.DataFrame:
    rows = as_rows(images)
    return pd.DataFrame(rows, columns=[f"pixel{k}" for k in range(rows.shape[1])])


@dataclass
class Asked:
    """A trained model, and the servers that answer for it.

    Attributes:
        run: record of its run.
        uri: MLflow URI of the model.
        pyfunc: the model as loaded by MLflow.
        saved_model: the SavedModel.
        directory: a directory for files.
    """

    run: RunRecord
    uri: str
    pyfunc: Any
    saved_model: Any
    directory: Path
    port: int = 0

    def post(self, body: Any, content_type: str = "application/json") -> Any:
        """Returns the response of `mlflow models serve`."""
        text = body if isinstance(body, str) else json.dumps(body)
        url = f"http://127.0.0.1:{self.port}/invocations"
        request = urllib.request.Request(url, text.encode(), {"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=LIMIT) as response:
            return json.load(response)["predictions"]

    def predict(self, text: str, content_type: str) -> Any:
        """Returns the response of `mlflow models predict`."""
        given, answer = self.directory / "given", self.directory / "answer"
        given.write_text(text)
        command = [str(BIN / "mlflow"), "models", "predict", "--env-manager", "local", "-m", self.uri]
        command += ["-i", str(given), "-o", str(answer), "-t", content_type]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(self.run))
        assert done.returncode == 0, done.stderr
        return json.loads(answer.read_text())["predictions"]


def environment(run: RunRecord) -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "MLFLOW_TRACKING_URI": run.uri}


@pytest.fixture(scope="module")
def asked(run_py: Run, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    directory = tmp_path_factory.mktemp("asked")
    done = run_py(directory, "dataset=digits", "epochs=5", "lr=0.5")
    assert done.returncode == 0, done.stderr
    (found,) = directory.glob("outputs/*/*")
    run = read(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", run.uri)
        pyfunc = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model")
    loaded = tf.saved_model.load(str(found / "saved_model"))
    return Asked(run, f"runs:/{run.run_id}/model", pyfunc, loaded, directory)


@pytest.fixture(scope="module")
def served(asked: Asked) -> Iterator[Asked]:
    """The model, with a real `mlflow models serve`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        asked.port = free.getsockname()[1]
    command = [str(BIN / "mlflow"), "models", "serve", "--env-manager", "local"]
    with (asked.directory / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(asked.port), "-m", asked.uri],
            env=environment(asked.run),
            cwd=asked.directory,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{asked.port}/ping"
        wait_until("the server", lambda: responds(url, server, asked.directory / "log"))
        yield asked
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(LIMIT)


def classes_of(answer: Any) -> Any:
    """Returns the classes in an answer: scores of each class, or classes."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return np.array([row["class"] for row in answer])
    answer = np.asarray(answer)
    return answer.argmax(axis=1) if answer.ndim == 2 else answer


def check(answer: Any, run: RunRecord) -> None:
    with np.load(run.directory / "report.npz") as archive:
        scores = archive["scores"]
    np.testing.assert_array_equal(classes_of(answer), scores.argmax(axis=1))
    assert np.mean(classes_of(answer) == DIGITS.y_test) == run.results["test/accuracy"]
    if np.ndim(answer) == 2:
        np.testing.assert_allclose(np.asarray(answer), scores, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [as_array, as_rows, as_table])
def test_loaded_model_answers_the_same_for_each_dtype_and_form(
    asked: Asked, form: Callable[[Any], Any], dtype: str
) -> None:
    check(asked.pyfunc.predict(form(DIGITS.x_test.astype(dtype))), asked.run)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [as_array, as_rows])
def test_saved_model_answers_the_same_for_each_dtype_and_form(
    asked: Asked, form: Callable[[Any], Any], dtype: str
) -> None:
    check(asked.saved_model(form(DIGITS.x_test.astype(dtype))).numpy(), asked.run)


def inputs(images: Any) -> dict[str, Any]:
    return {"inputs": images.tolist()}


def instances(images: Any) -> dict[str, Any]:
    return {"instances": images.tolist()}


def split(images: Any) -> dict[str, Any]:
    return {"dataframe_split": as_table(images).to_dict(orient="split")}


def records(images: Any) -> dict[str, Any]:
    return {"dataframe_records": as_table(images).to_dict(orient="records")}


def named_instances(images: Any) -> dict[str, Any]:
    return {"instances": as_table(images).to_dict(orient="records")}


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", [as_array, as_rows])
@pytest.mark.parametrize("way", [inputs, instances, split, records, named_instances])
def test_server_answers_the_same_for_each_dtype_form_and_format(
    served: Asked, way: Callable[[Any], dict[str, Any]], form: Callable[[Any], Any], dtype: str
) -> None:
    check(served.post(way(form(DIGITS.x_test.astype(dtype)))), served.run)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
def test_csv_is_answered_the_same_by_server_and_command(served: Asked, dtype: str) -> None:
    text = as_table(DIGITS.x_test.astype(dtype)).to_csv(index=False)
    check(served.post(text, CSV), served.run)
    check(served.predict(text, "csv"), served.run)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", [inputs, split])
def test_command_answers_the_same_for_each_dtype_and_format(
    asked: Asked, way: Callable[[Any], dict[str, Any]], dtype: str
) -> None:
    check(asked.predict(json.dumps(way(DIGITS.x_test.astype(dtype))), "json"), asked.run)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
def test_evaluation_by_mlflow_finds_the_accuracy_of_the_run(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", asked.run.uri)
    monkeypatch.chdir(asked.directory)
    table = as_table(DIGITS.x_test.astype(dtype)).assign(label=DIGITS.y_test)
    with mlflow.start_run(experiment_id="0"):
        found = mlflow.models.evaluate(asked.uri, table, targets="label", model_type="classifier")
    assert found.metrics["accuracy_score"] == asked.run.results["test/accuracy"]


SHAPES = "send [n, 8, 8] or rows of 64 values"
SCALES = "but the model was trained on values from 0 to 16: scale them"
REFUSED = {
    "floats from 0 to 1": (DIGITS.x_test / 16, f"values from 0 to 1, {SCALES}"),
    "black and white": (DIGITS.x_test // 16, f"values from 0 to 1, {SCALES}"),
    "floats from -1 to 1": (DIGITS.x_test / 8 - 1, f"values from -1 to 1, {SCALES}"),
    "integers up to 255": (DIGITS.x_test * 15, f"values from 0 to 240, {SCALES}"),
    "negative": (DIGITS.x_test - np.int64(1), f"values from -1 to 15, {SCALES}"),
    "nan": (np.where(DIGITS.x_test, np.nan, 0), "NaN or infinity"),
    "infinity": (np.full((1, 64), np.inf), "NaN or infinity"),
    "columns missing": (DIGITS.x_test[:, :, :7], SHAPES),
    "one image": (DIGITS.x_test[0], SHAPES),
    "one row": (DIGITS.x_test[0].ravel(), SHAPES),
}
REFUSED_BY_PYFUNC = {
    "text": (np.full((1, 64), "a"), "of dtype <U1: send integers or floats"),
    "nothing": (None, "send integers or floats"),
    "a table with text": (as_table(DIGITS.x_test).astype(object).replace(0, "a"), "are not numbers"),
    "a table with labels": (as_table(DIGITS.x_test).assign(label=1), SHAPES),
    "a table with gaps": (as_table(DIGITS.x_test).where(DIGITS.x_test.reshape(-1, 64) > 0), "NaN"),
}


@pytest.mark.parametrize("case", REFUSED | REFUSED_BY_PYFUNC)
def test_images_that_cannot_be_meant_are_refused(asked: Asked, case: str) -> None:
    images, message = (REFUSED | REFUSED_BY_PYFUNC)[case]
    with pytest.raises(mlflow.MlflowException) as refused:
        asked.pyfunc.predict(images)
    assert message in str(refused.value)
    assert refused.value.get_http_status_code() == 400


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_cannot_be_meant_are_refused_by_the_saved_model(asked: Asked, case: str) -> None:
    images, message = REFUSED[case]
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)) as refused:
        asked.saved_model(images)
    if message != SHAPES:
        known = message.split(":")[0].replace(",", "")
        assert known in str(refused.value).replace("[", "").replace("]", "")


@pytest.mark.long
@pytest.mark.parametrize("way", [inputs, instances, split, records])
def test_server_refuses_floats_of_another_scale(served: Asked, way: Callable[[Any], dict[str, Any]]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        served.post(way(as_rows(DIGITS.x_test / 16)))
    assert refused.value.code == 400
    assert SCALES in refused.value.read().decode()


@pytest.mark.parametrize("empty", [np.array([]), DIGITS.x_test[:0], as_rows(DIGITS.x_test)[:0].astype(float)])
def test_empty_array_has_an_empty_answer(asked: Asked, empty: Any) -> None:
    assert asked.pyfunc.predict(empty).shape == (0, 10)
    if empty.ndim > 1:
        assert asked.saved_model(empty).shape == (0, 10)


def test_empty_table_has_an_empty_answer(asked: Asked) -> None:
    empty = as_table(DIGITS.x_test)[:0]
    assert asked.pyfunc.predict(empty).shape == (0,)
    assert asked.pyfunc.predict(empty, {"output": "probabilities"}).shape == (0, 11)


@pytest.mark.long
def test_empty_request_has_an_empty_answer(served: Asked) -> None:
    for body in ({"inputs": []}, {"instances": []}, {"dataframe_records": []}, split(DIGITS.x_test[:0])):
        assert served.post(body) == []
    assert served.post(as_table(DIGITS.x_test)[:0].to_csv(index=False), CSV) == []


def test_blank_image_is_answered(asked: Asked) -> None:
    blank = np.zeros((1, 8, 8), np.float32)
    np.testing.assert_allclose(asked.pyfunc.predict(blank), asked.saved_model(blank), atol=1e-6)


def test_columns_are_ordered_by_the_numbers_in_their_names(asked: Asked) -> None:
    table = as_table(DIGITS.x_test)
    check(asked.pyfunc.predict(table[sorted(table.columns)]), asked.run)  # pixel0, pixel1, pixel10, ...
    check(asked.pyfunc.predict(table.set_axis(range(64), axis=1).iloc[:, ::-1]), asked.run)
    check(asked.pyfunc.predict(table.set_axis([f"{k // 8}x{k % 8}" for k in range(64)], axis=1)), asked.run)


def test_column_of_images_is_answered(asked: Asked) -> None:
    check(asked.pyfunc.predict(pd.DataFrame({"image": DIGITS.x_test.tolist()})), asked.run)


@pytest.mark.parametrize("form", [as_array, as_table])
def test_class_and_probabilities_have_names(asked: Asked, form: Callable[[Any], Any]) -> None:
    images = form(DIGITS.x_test)
    scores = asked.pyfunc.predict(images, {"output": "scores"})
    classes = asked.pyfunc.predict(images, {"output": "class"})
    table = asked.pyfunc.predict(images, {"output": "probabilities"})
    check(scores, asked.run)
    check(classes, asked.run)
    assert classes.name == "class"
    assert list(table.columns) == ["class", *(f"probability_{k}" for k in range(10))]
    values = table.to_numpy()[:, 1:]
    np.testing.assert_allclose(values.sum(axis=1), 1)
    np.testing.assert_array_equal(values.argmax(axis=1), classes)
    np.testing.assert_array_equal(table["class"], classes)
    with pytest.raises(mlflow.MlflowException, match="use one of auto, scores, class, probabilities"):
        asked.pyfunc.predict(images, {"output": "logits"})


@pytest.mark.long
def test_server_names_class_and_probabilities(served: Asked) -> None:
    answer = served.post(inputs(DIGITS.x_test) | {"params": {"output": "probabilities"}})
    check(answer, served.run)
    for row in answer:
        assert list(row) == ["class", *(f"probability_{k}" for k in range(10))]


def test_softmax_matches_tensorflow_and_does_not_overflow() -> None:
    scores = np.random.default_rng(0).normal(size=(50, 7)) * 1000
    np.testing.assert_allclose(softmax(scores), tf.nn.softmax(scores), rtol=1e-6, atol=1e-12)


def test_no_probabilities_are_nearer_to_the_scores() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0.1, 0.3, size=(200, 6))
    nearest = nearest_probabilities(scores)
    assert (nearest >= 0).all()
    np.testing.assert_allclose(nearest.sum(axis=1), 1)
    # A projection p on a convex set has (scores - p) . (q - p) <= 0 for each of its corners q.
    products = (scores - nearest) @ np.eye(6) - ((scores - nearest) * nearest).sum(axis=1, keepdims=True)
    assert (products <= 1e-12).all()
    already = rng.dirichlet(np.ones(6), size=50)
    np.testing.assert_allclose(nearest_probabilities(already), already, atol=1e-12)


def untrained(directory: Path, dataset: Dataset, loss: str = "mse") -> TapeModel:
    """Returns a linear model with random weights, with the description that a run on the data set writes."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.normal(size=(dataset.n_features, dataset.n_classes)), "b1": np.zeros(1)}
    np.savez(directory / "weights.npz", **{key: w.astype(np.float32) for key, w in weights.items()})
    about = {"activation": "relu", "loss": loss, "shape": dataset.x_test.shape[1:]} | dataset.scale.as_json()
    accepted = run_report.accepted_values(dataset)
    (directory / "network.json").write_text(json.dumps(about | accepted))
    model = TapeModel()
    files = {"weights": directory / "weights.npz", "network": directory / "network.json"}
    model.load_context(SimpleNamespace(artifacts=files))
    return model


def test_scores_of_an_unknown_loss_are_not_called_probabilities(tmp_path: Path) -> None:
    for loss in ("mse", "cross_entropy"):
        model = untrained(tmp_path, DIGITS, loss)
        assert model.predict(None, DIGITS.x_test, {"output": "probabilities"}).shape == (360, 11)
    model = untrained(tmp_path, DIGITS, "mine.huber")
    with pytest.raises(mlflow.MlflowException, match=r"loss=mine.huber .* use output=class or scores"):
        model.predict(None, DIGITS.x_test, {"output": "probabilities"})
    assert model.predict(None, DIGITS.x_test, {"output": "class"}).shape == (360,)


def of_floats(scale: float, shift: float) -> Dataset:
    """Returns the digits as floats: multiplied by `scale`, then `shift` is added."""
    x = {
        name: getattr(DIGITS, name).astype(np.float32) * np.float32(scale) + np.float32(shift)
        for name in ("x_train", "x_test")
    }
    return dataclasses.replace(DIGITS, scale=Scale(), **x)


def hundred_classes() -> Dataset:
    """Returns rows of 12 features of very different sizes, and 100 classes."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3000, 12)) * np.logspace(0, 3, 12)).astype(np.float32)
    y = np.arange(3000, dtype=np.int32) % 100
    return Dataset("features", x[:2500], y[:2500], x[2500:], y[2500:], tuple(range(100)), Scale(), "")


@pytest.mark.parametrize("name", ["digits", "hundred"])
def test_table_without_header_is_refused(tmp_path: Path, name: str) -> None:
    rows = as_rows(DATASETS[name].x_test)
    table = pd.read_csv(io.StringIO(pd.DataFrame(rows).to_csv(index=False, header=False)))
    with pytest.raises(mlflow.MlflowException, match="add a header row"):
        untrained(tmp_path, DATASETS[name]).predict(None, table)


def with_blank_images() -> Dataset:
    x = np.concatenate([np.zeros((5, 8, 8), np.uint8), DIGITS.x_train])
    return dataclasses.replace(
        DIGITS, x_train=x, y_train=np.concatenate([DIGITS.y_train[:5], DIGITS.y_train])
    )


UNIT, STANDARDIZED = of_floats(1 / 16, 0), of_floats(1 / 6, -0.8)
DATASETS = {
    "digits": DIGITS,
    "unit": UNIT,
    "standardized": STANDARDIZED,
    "bytes as floats": of_floats(16, 0),
    "blank": with_blank_images(),
    "hundred": hundred_classes(),
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_image_of_a_data_set_is_answered(tmp_path: Path, name: str) -> None:
    dataset = DATASETS[name]
    model = untrained(tmp_path, dataset)
    for x in (dataset.x_train, dataset.x_test):
        scores = model.predict(None, x)
        assert scores.shape == (len(x), dataset.n_classes)
        for k in range(0, len(x), 7):  # and alone
            assert model.predict(None, x[k : k + 1]).shape == (1, dataset.n_classes)


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("digits", UNIT.x_test),
        ("digits", STANDARDIZED.x_test),
        ("blank", UNIT.x_test),
        ("unit", DIGITS.x_test),
        ("unit", UNIT.x_test / 255),
        ("unit", UNIT.x_test * 2 - 1),
        ("standardized", DIGITS.x_test),
        ("bytes as floats", UNIT.x_test),
        ("hundred", DATASETS["hundred"].x_test * 1000),
        ("hundred", DATASETS["hundred"].x_test / 100_000),
    ],
)
def test_images_of_another_scale_are_refused(tmp_path: Path, name: str, images: Any) -> None:
    with pytest.raises(mlflow.MlflowException, match="but the model was trained on values from"):
        untrained(tmp_path, DATASETS[name]).predict(None, images)


def test_directory_of_an_earlier_version_still_has_a_model(asked: Asked, tmp_path: Path) -> None:
    about = json.loads((asked.run.directory / "network.json").read_text())
    for key in ("loss", "range", "accepted", "least_peak"):
        del about[key]
    (tmp_path / "network.json").write_text(json.dumps(about))
    (tmp_path / "weights.npz").write_bytes((asked.run.directory / "weights.npz").read_bytes())
    saved_model.save(tmp_path)
    check(tf.saved_model.load(str(tmp_path / "saved_model"))(DIGITS.x_test).numpy(), asked.run)
    model = TapeModel()
    files = {"weights": tmp_path / "weights.npz", "network": tmp_path / "network.json"}
    model.load_context(SimpleNamespace(artifacts=files))
    check(model.predict(None, DIGITS.x_test), asked.run)
