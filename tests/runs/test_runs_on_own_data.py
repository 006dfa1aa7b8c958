"""Runs on one's own data, from the command line to MLflow."""

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from conftest import Run, sample
from mlp_tape.data import datasets
from mlp_tape.storage import run_record
from mlp_tape.storage.run_record import RunRecord

DIGITS = datasets.load("digits")
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
QUICK = ("optimizer=adam", "loss=cross_entropy", "lr=0.01")


def write(directory: Path, **changes: np.ndarray) -> str:
    """Writes the digits with some arrays replaced, and returns the override with their file."""
    keys = ("x_train", "y_train", "x_test", "y_test")
    np.savez(directory / "own.npz", **{key: getattr(DIGITS, key) for key in keys} | changes)
    return "dataset.path=own.npz"


def client_of(run: RunRecord) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(run.uri)


def the_run(directory: Path) -> RunRecord:
    """Returns the newest run."""
    runs = map(run_record.read, run_record.directories(directory / "outputs"))
    return max(runs, key=lambda run: run.began)


def test_a_run_prints_dtype_range_and_divisor_of_both_parts(run_py: Run, tmp_path: Path) -> None:
    path = write(tmp_path, y_train=NAMES[DIGITS.y_train], y_test=NAMES[DIGITS.y_test])
    done = run_py(tmp_path, path, "epochs=1", "tracking.enabled=false", "report=none")
    assert "data   arrays, 1,437 images to train on, 360 to test" in done.stdout
    assert "train uint8 from 0 to 16, test uint8 from 0 to 16; divided by 16" in done.stdout
    assert "10 classes: eight (141), five (145)" in done.stdout
    record = the_run(tmp_path)
    assert record.settings["dataset"]["name"] == "arrays"
    assert record.settings["shuffle"] is True
    assert record.params["scale"] == "divided by 16"


@pytest.mark.long
def test_sorted_images_without_shuffling_are_told(run_py: Run, tmp_path: Path) -> None:
    order = np.argsort(DIGITS.y_train, kind="stable")
    path = write(tmp_path, x_train=DIGITS.x_train[order], y_train=DIGITS.y_train[order])
    common = (path, "epochs=1", "tracking.enabled=false", "report=none")
    assert "type shuffle=true" in run_py(tmp_path, *common, "shuffle=false").stderr
    done = run_py(tmp_path, *common, "shuffle=true")
    assert "WARNING" not in done.stderr
    assert done.returncode == 0


def test_validation_images_of_the_file_choose_the_weights(run_py: Run, tmp_path: Path) -> None:
    path = write(tmp_path, x_validation=DIGITS.x_test[:100], y_validation=DIGITS.y_test[:100])
    common = (path, "epochs=3", "tracking.enabled=false", "report=none")
    done = run_py(tmp_path, *common, "stopping.patience=1")
    assert done.returncode == 0, done.stderr
    assert "1,437 images to train on, 100 to validate, 360 to test" in done.stdout
    assert "100 of 100 rows of x_validation are also" not in done.stderr
    assert "validation/accuracy" in the_run(tmp_path).results
    done = run_py(tmp_path, write(tmp_path), *common[1:], "stopping.patience=1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith("stopping.patience=1 requires validation images")


@pytest.mark.long
def test_rare_classes_are_shown_where_accuracy_hides_them(run_py: Run, tmp_path: Path) -> None:
    is_rare = [(y == 3) & (np.arange(len(y)) % 9 == 0) for y in (DIGITS.y_train, DIGITS.y_test)]
    path = write(tmp_path, y_train=is_rare[0], y_test=is_rare[1])
    done = run_py(tmp_path, path, "epochs=1")
    assert done.returncode == 0, done.stderr
    assert "always answering False would score 0.9" in done.stdout
    assert "balanced accuracy 0.5000" in done.stdout
    assert "lowest recall: True 0.0000 of" in done.stdout
    record = the_run(tmp_path)
    client = client_of(record)
    run = client.get_run(record.run_id)
    assert run.data.metrics["test/balanced_accuracy"] == 0.5
    assert run.data.metrics["test/majority_accuracy"] == run.data.metrics["test/accuracy"] > 0.9
    assert "Some classes are rare: balanced accuracy 0.5000" in run.data.tags["mlflow.note.content"]
    table = pd.read_csv(client.download_artifacts(record.run_id, "classes.csv", str(tmp_path)))
    assert table["class"].astype(str).tolist() == ["False", "True"]
    assert table["recall"].tolist() == [1.0, 0.0]


@pytest.mark.long
def test_frequent_classes_have_no_such_metrics(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, write(tmp_path), "epochs=1", "report=light")
    assert "balanced" not in done.stdout
    record = the_run(tmp_path)
    assert "test/balanced_accuracy" not in client_of(record).get_run(record.run_id).data.metrics


def standardized(x: np.ndarray) -> np.ndarray:
    """Returns rows whose columns differ by orders of magnitude."""
    return x.reshape(len(x), -1) * np.logspace(0, 3, 64)


def of_int16(x: np.ndarray) -> np.ndarray:
    return x.astype(np.int16) * 100 - 800


@pytest.mark.parametrize("change", sample([standardized, of_int16], of_int16))
def test_scale_and_names_are_part_of_the_model(
    run_py: Run, tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    x = {"x_train": change(DIGITS.x_train), "x_test": change(DIGITS.x_test)}
    path = write(tmp_path, **x, y_train=NAMES[DIGITS.y_train], y_test=NAMES[DIGITS.y_test])
    done = run_py(tmp_path, path, "epochs=5", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "standardized" in done.stdout
    record = the_run(tmp_path)
    accuracy, truth = record.results["test/accuracy"], NAMES[DIGITS.y_test]
    assert accuracy > 0.85
    monkeypatch.setenv("MLFLOW_TRACKING_URI", record.uri)
    model = mlflow.pyfunc.load_model(f"runs:/{record.run_id}/model")
    assert np.mean(model.predict(x["x_test"], params={"output": "class"}) == truth) == accuracy
    probabilities = model.predict(x["x_test"], params={"output": "probabilities"})
    assert list(probabilities) == ["class", *(f"probability_{name}" for name in sorted(NAMES))]
    about = json.loads((record.directory / "network.json").read_text())
    assert about["classes"] == about["class_names"] == sorted(NAMES.tolist())
    served = tf.saved_model.load(str(record.directory / "saved_model"))
    scores = served(tf.constant(x["x_test"].astype(np.float32))).numpy()
    assert np.mean(np.sort(NAMES)[scores.argmax(axis=1)] == truth) == accuracy
