"""What a run shows of itself: its pictures, and what is counted for them while it trains."""

import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import mlflow
import numpy as np
import pytest
import tensorflow as tf

from conftest import LIMIT, Run, train
from mlp_tape.data.datasets import Dataset
from mlp_tape.runs.trainer import step_config
from mlp_tape.storage import histogram_files
from mlp_tape.tensors import network
from mlp_tape.training import evaluation
from mlp_tape.training.histograms import Histogram, histogram

CONFIG = step_config("relu", "mse", "sgd", 255.0)
PICTURES = {
    "class_accuracy.png",
    "confusion_matrix.png",
    "first_layer.png",
    "histograms.png",
    "layers.png",
    "learning_curve.png",
    "worst_mistakes.png",
}


def test_a_histogram_says_where_the_values_lie() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    found = histogram(values)
    assert found
    assert found.counts.sum() == len(values)
    edges = np.linspace(-3, 3, 25)
    expected, _ = np.histogram(values, edges)
    np.testing.assert_allclose(found.density(edges), expected / len(values), atol=2e-3)
    bin_width = (found.high - found.low) / len(found.counts)
    for share in (0.005, 0.3, 0.995):
        assert found.quantile(share) == pytest.approx(np.quantile(values, share), abs=1.1 * bin_width)


def test_a_histogram_of_equal_values_and_of_values_that_are_not_finite() -> None:
    zeros = histogram(np.zeros(7, np.float32))
    assert zeros
    share = zeros.density(np.array([-3.0, -1.0, 1.0, 3.0]))
    np.testing.assert_allclose(share, [0, 1, 0])
    assert histogram(np.array([1, np.nan], np.float32)) is None
    assert histogram(np.array([1, np.inf], np.float32)) is None


def test_counting_histograms_changes_nothing_of_what_is_trained(mnist_5k: Dataset) -> None:
    x, y = mnist_5k.x_train[:1000], mnist_5k.y_train[:1000]
    ends, found = [], {}
    for every in (None, 2):
        params = network.init_params([784, 32, 10], 0.1, seed=0)
        before = params["w1"].numpy()
        for block in train(
            params, x, y, CONFIG, lr=0.1, batch_size=64, epochs=2, log_every=5, histogram_every=every
        ):
            found |= {block.global_step: block.histograms} if block.histograms else {}
        ends.append(params["w1"].numpy())
    np.testing.assert_array_equal(*ends)
    assert sorted(found) == [0, 10, 16, 26]  # 16 steps an epoch; logged: 0, 5, 10, 15, 16, 21, 26, 31
    assert set(found[0]) == {f"{kind}/{name}" for kind in ("params", "grads") for name in params}
    expected = histogram(before)
    assert expected
    np.testing.assert_array_equal(found[0]["params/w1"].counts, expected.counts)
    assert all(
        each.counts.sum() == params[key.split("/")[1]].shape.num_elements() for key, each in found[10].items()
    )


def test_histograms_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = {"params/w1": Histogram(np.arange(4, dtype=np.int32), -1.0, 3.0)}
    histogram_files.save(tmp_path, 12, found)
    histogram_files.save(tmp_path, 7, found)
    (first, _), (second, again) = histogram_files.read(tmp_path)
    assert (first, second) == (7, 12)
    assert (again["params/w1"].low, again["params/w1"].high) == (-1.0, 3.0)
    np.testing.assert_array_equal(again["params/w1"].counts, [0, 1, 2, 3])


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_unit_is_dead_that_is_0_for_every_image(mnist_5k: Dataset, engine: str) -> None:
    params = network.init_params([784, 8, 4, 10], 0.1, seed=0)
    params["b1"].assign(tf.constant([-1e6, -1e6, 1, 1, 1, 1, 1, 1], tf.float32))
    params["b2"].assign(tf.constant([-1e6, 1e6, 1e6, 1e6], tf.float32))
    x, y = mnist_5k.x_train[:3001], mnist_5k.y_train[:3001]
    assert evaluation.evaluate(params, x, y, CONFIG, engine).dead == {"h1": 0.25, "h2": 0.25}


def test_a_unit_that_one_image_reaches_is_not_dead(mnist_5k: Dataset) -> None:
    x, y = np.zeros((6000, 784), np.uint8), np.zeros(6000, np.int32)
    x[5500, 3] = 255  # in the second go
    params = network.init_params([784, 2, 10], 0.1, seed=0)
    weights = np.zeros((784, 2), np.float32)
    weights[3, 0] = 1
    params["w1"].assign(weights)
    assert evaluation.evaluate(params, x, y, CONFIG).dead == {"h1": 0.5}


def test_a_full_report_has_all_pictures_here_and_in_mlflow(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "dataset=digits", "epochs=3", "lr=0.3")
    assert done.returncode == 0, done.stderr
    (directory,) = tmp_path.glob("outputs/*/*")
    assert {path.name for path in directory.glob("plots/*.png")} == PICTURES
    for path in directory.glob("plots/*.png"):
        image = matplotlib.image.imread(path)
        assert 400 <= image.shape[0] <= 1200, path.name
        assert 600 <= image.shape[1] <= 900, path.name
        assert image[:5, :5].min() == 1, "the background is white"
        assert image.std() > 0.03, f"{path.name} is not empty"
    run_id = json.loads((directory / "run.json").read_text())["run_id"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {Path(file.path).name for file in client.list_artifacts(run_id, "plots")} == PICTURES
    rows = client.get_metric_history(run_id, "units/h1/dead")
    assert [row.step for row in rows] == [11, 23, 35]
    assert [step for step, _ in histogram_files.read(directory)] == [0, 12, 24]  # each logged step


@pytest.mark.long
@pytest.mark.parametrize(("how", "left"), [("light", {"weights.npz"}), ("none", set())])
def test_less_of_a_report_leaves_less(run_py: Run, tmp_path: Path, how: str, left: set[str]) -> None:
    done = run_py(tmp_path, "dataset=digits", "epochs=1", f"report={how}", "tracking.enabled=false")
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    (directory,) = tmp_path.glob("outputs/*/*")
    assert {path.name for path in directory.glob("w*.npz")} == left
    assert not (directory / "plots").exists()
    assert not (directory / "histograms").exists()


def test_the_first_step_is_told_operation_by_operation_with_both_pitfalls(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mlp_tape",
        "walk",
        "dataset=digits",
        "model.hidden_sizes=[32]",
        "lr=0.1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    names = [line[0] for line in lines if line]
    for step_by_step in (["w1", "b1", "w2", "b2"], ["x", "z1", "h1", "logits", "loss"]):
        start = names.index(step_by_step[0])
        assert names[start : start + len(step_by_step)] == step_by_step
    gradients = [line[2] for line in lines if line[:2] == ["gradient", "of"]]
    assert gradients == ["b2", "w2", "b1", "w1"], "from the last layer to the first"
    assert "z1 x @ w1 + b1 (128, 32) float32" in " ".join(done.stdout.split())
    told = re.search(r"loss of this batch: (\S+) before, (\S+) after", done.stdout)
    assert told
    assert float(told[2]) < float(told[1]), "a step down"
    assert done.stdout.count("w1: None, b1: there, w2: there, b2: there") == 2
    assert done.stdout.count("train_step refuses it: w1 is of type EagerTensor") == 2
    assert not list(tmp_path.iterdir()), "it is no run"


@pytest.mark.long
def test_the_loss_that_is_told_is_that_of_a_runs_first_step(run_py: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlp_tape", "walk", "dataset=digits"]
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT).stdout
    done = run_py(tmp_path, "dataset=digits", "epochs=1", "tracking.enabled=false", "report=none")
    trained = re.search(r"epoch 0  step 0  loss (\S+)", done.stdout)
    walked = re.search(r"loss of this batch: (\S+) before", told)
    assert trained and walked
    assert float(walked[1]) == pytest.approx(float(trained[1]), abs=2e-6)


def test_a_wrong_setting_to_walk_with_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlp_tape", "walk", "lrr=0.1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: unknown setting: lrr", "       did you mean lr=... ?"]


@pytest.mark.long
def test_data_that_are_no_images_have_no_pictures_of_images(run_py: Run, tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    arrays = {
        "x_train": dice.normal(size=(200, 5)).astype(np.float32),
        "y_train": dice.integers(0, 3, 200),
        "x_test": dice.normal(size=(50, 5)).astype(np.float32),
        "y_test": dice.integers(0, 3, 50),
    }
    np.savez(tmp_path / "mine.npz", **arrays)
    done = run_py(
        tmp_path,
        "dataset=arrays",
        "dataset.path=mine.npz",
        "epochs=1",
        "model.hidden_sizes=[]",
        "tracking.enabled=false",
    )
    assert done.returncode == 0, done.stderr
    (directory,) = tmp_path.glob("outputs/*/*")
    assert {path.name for path in directory.glob("plots/*.png")} == PICTURES - {
        "first_layer.png",
        "worst_mistakes.png",
    }
