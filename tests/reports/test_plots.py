"""The report of a run: plots, histograms, dead units, and the walkthrough of a step."""

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
from mlp_tape.storage import histogram_files, run_record
from mlp_tape.tensors import network
from mlp_tape.training import evaluation
from mlp_tape.training.histograms import Histogram, histogram

CONFIG = step_config("relu", "mse", "sgd", 255.0)
PLOTS = {
    "class_accuracy.png",
    "confusion_matrix.png",
    "first_layer.png",
    "histograms.png",
    "layers.png",
    "learning_curve.png",
    "worst_mistakes.png",
}


def test_histogram_describes_the_distribution_of_the_values() -> None:
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


def test_histogram_of_equal_values_and_of_values_that_are_not_finite() -> None:
    zeros = histogram(np.zeros(7, np.float32))
    assert zeros
    share = zeros.density(np.array([-3.0, -1.0, 1.0, 3.0]))
    np.testing.assert_allclose(share, [0, 1, 0])
    assert histogram(np.array([1, np.nan], np.float32)) is None
    assert histogram(np.array([1, np.inf], np.float32)) is None


def test_histograms_do_not_affect_training(mnist_5k: Dataset) -> None:
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
    assert sorted(found) == [0, 10, 16, 26]  # 16 steps per epoch; logged: 0, 5, 10, 15, 16, 21, 26, 31
    assert set(found[0]) == {f"{kind}/{name}" for kind in ("params", "grads") for name in params}
    expected = histogram(before)
    assert expected
    np.testing.assert_array_equal(found[0]["params/w1"].counts, expected.counts)
    assert all(
        each.counts.sum() == params[key.split("/")[1]].shape.num_elements() for key, each in found[10].items()
    )


def test_histogram_files_are_read_back_unchanged(tmp_path: Path) -> None:
    found = {"params/w1": Histogram(np.arange(4, dtype=np.int32), -1.0, 3.0)}
    histogram_files.save(tmp_path, 12, found)
    histogram_files.save(tmp_path, 7, found)
    (first, _), (second, again) = histogram_files.read(tmp_path)
    assert (first, second) == (7, 12)
    assert (again["params/w1"].low, again["params/w1"].high) == (-1.0, 3.0)
    np.testing.assert_array_equal(again["params/w1"].counts, [0, 1, 2, 3])


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_unit_that_is_0_for_every_image_is_dead(mnist_5k: Dataset, engine: str) -> None:
    params = network.init_params([784, 8, 4, 10], 0.1, seed=0)
    params["b1"].assign(tf.constant([-1e6, -1e6, 1, 1, 1, 1, 1, 1], tf.float32))
    params["b2"].assign(tf.constant([-1e6, 1e6, 1e6, 1e6], tf.float32))
    x, y = mnist_5k.x_train[:3001], mnist_5k.y_train[:3001]
    assert evaluation.evaluate(params, x, y, CONFIG, engine).dead == {"h1": 0.25, "h2": 0.25}


def test_unit_that_one_image_activates_is_not_dead(mnist_5k: Dataset) -> None:
    x, y = np.zeros((6000, 784), np.uint8), np.zeros(6000, np.int32)
    x[5500, 3] = 255  # in the second chunk of the evaluation
    params = network.init_params([784, 2, 10], 0.1, seed=0)
    weights = np.zeros((784, 2), np.float32)
    weights[3, 0] = 1
    params["w1"].assign(weights)
    assert evaluation.evaluate(params, x, y, CONFIG).dead == {"h1": 0.5}


@pytest.mark.long
def test_full_report_has_all_plots_locally_and_in_mlflow(run_py: Run, tmp_path: Path) -> None:
    done = run_py(tmp_path, "dataset=digits", "epochs=3", "lr=0.3")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^epoch 2  test loss 0\.\d{6}  test accuracy 0\.\d{4}$", done.stdout, re.M)
    (directory,) = tmp_path.glob("outputs/*/*")
    assert {path.name for path in directory.glob("plots/*.png")} == PLOTS
    for path in directory.glob("plots/*.png"):
        image = matplotlib.image.imread(path)
        assert 400 <= image.shape[0] <= 1200, path.name
        assert 600 <= image.shape[1] <= 900, path.name
        assert image[:5, :5].min() == 1, f"the background of {path.name} is not white"
        assert image.std() > 0.03, f"{path.name} is empty"
    run_id = run_record.read(directory).run_id
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {Path(file.path).name for file in client.list_artifacts(run_id, "plots")} == PLOTS
    rows = client.get_metric_history(run_id, "units/h1/dead")
    assert [row.step for row in rows] == [11, 23, 35]
    assert [step for step, _ in histogram_files.read(directory)] == [0, 12, 24]  # every logged step


@pytest.mark.long
@pytest.mark.parametrize(("report", "expected"), [("light", {"weights.npz"}), ("none", set())])
def test_smaller_report_writes_fewer_files(
    run_py: Run, tmp_path: Path, report: str, expected: set[str]
) -> None:
    done = run_py(tmp_path, "dataset=digits", "epochs=1", f"report={report}", "tracking.enabled=false")
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    (directory,) = tmp_path.glob("outputs/*/*")
    assert {path.name for path in directory.glob("w*.npz")} == expected
    assert not (directory / "plots").exists()
    assert not (directory / "histograms").exists()


def test_walkthrough_shows_each_operation_and_both_pitfalls(tmp_path: Path) -> None:
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
    for expected in (["w1", "b1", "w2", "b2"], ["x", "z1", "h1", "logits", "loss"]):
        start = names.index(expected[0])
        assert names[start : start + len(expected)] == expected
    gradients = [line[2] for line in lines if line[:2] == ["gradient", "of"]]
    assert gradients == ["b2", "w2", "b1", "w1"], "not in order from the last layer to the first"
    assert "z1 x @ w1 + b1 (128, 32) float32" in " ".join(done.stdout.split())
    losses = re.search(r"loss of this batch: (\S+) before, (\S+) after", done.stdout)
    assert losses
    assert float(losses[2]) < float(losses[1]), "the step has not reduced the loss"
    assert done.stdout.count("w1: None, b1: present, w2: present, b2: present") == 2
    assert done.stdout.count("train_step rejects it: w1 is of type EagerTensor") == 2
    assert not list(tmp_path.iterdir()), "the walkthrough has written files"


@pytest.mark.long
def test_walkthrough_shows_the_loss_of_the_first_step_of_a_run(run_py: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlp_tape", "walk", "dataset=digits"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT).stdout
    done = run_py(tmp_path, "dataset=digits", "epochs=1", "tracking.enabled=false", "report=none")
    trained = re.search(r"epoch 0  step 0  loss (\S+)", done.stdout)
    walked = re.search(r"loss of this batch: (\S+) before", shown)
    assert trained and walked
    assert float(walked[1]) == pytest.approx(float(trained[1]), abs=2e-6)


def test_walkthrough_rejects_an_unknown_setting(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlp_tape", "walk", "lrr=0.1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: unknown setting: lrr", "       did you mean lr=0.1 ?"]


@pytest.mark.long
def test_data_without_images_have_no_plots_of_images(run_py: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.normal(size=(200, 5)).astype(np.float32),
        "y_train": rng.integers(0, 3, 200),
        "x_test": rng.normal(size=(50, 5)).astype(np.float32),
        "y_test": rng.integers(0, 3, 50),
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
    assert {path.name for path in directory.glob("plots/*.png")} == PLOTS - {
        "first_layer.png",
        "worst_mistakes.png",
    }
