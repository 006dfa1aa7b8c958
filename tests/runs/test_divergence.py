"""Divergence: the first tensor that is not finite is found, and its step can be replayed."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import tensorflow as tf

from conftest import ROOT, train
from mlp_tape.config.settings import DatasetSettings, Settings, TrackingSettings
from mlp_tape.data import datasets
from mlp_tape.errors import ConfigError, DivergenceError
from mlp_tape.runs import divergence
from mlp_tape.runs.run import execute_run
from mlp_tape.runs.trainer import step_config
from mlp_tape.storage import checkpoint
from mlp_tape.storage.run_record import Command
from mlp_tape.tensors import network
from mlp_tape.training import trace, train_step
from mlp_tape.training.state import State

DIVERGING = Settings(
    lr=3.0,
    batch_size=1437,  # all training images of digits: one step per epoch
    epochs=30,
    log_every=10,
    dataset=DatasetSettings(name="digits"),
)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DivergenceError]:
    """The directory and the error of a run that diverged."""
    directory = tmp_path_factory.mktemp("diverged")
    with contextlib.chdir(directory), pytest.raises(DivergenceError) as caught:
        execute_run(DIVERGING, directory, Command([], []))
    return directory, caught.value


def test_diverged_step_is_saved_with_the_exact_state_of_training(
    diverged: tuple[Path, DivergenceError],
) -> None:
    directory, error = diverged
    (saved,) = checkpoint.usable(directory / "divergence", pytest.fail)
    assert f"at step {saved.step} (epoch {saved.step}, step 0)" in error.what
    assert saved.step > 3  # after several checkpoints
    digits = datasets.load("digits")
    config = step_config("relu", "mse", "sgd", 16.0)
    params = network.init_params([64, 256, 128, 10], 0.1, 0)
    settings = {"lr": 3.0, "batch_size": 1437, "epochs": 30, "log_every": 10}
    for _ in train(params, digits.x_train, digits.y_train, config, **settings, until=saved.step):
        pass
    for name, param in params.items():
        np.testing.assert_array_equal(saved.arrays[name], param.numpy())
    np.testing.assert_array_equal(saved.arrays["x"], digits.x_train)
    np.testing.assert_array_equal(saved.arrays["y"], digits.y_train)


def test_mlflow_has_the_reason_the_saved_step_and_only_finite_values(
    diverged: tuple[Path, DivergenceError],
) -> None:
    directory, error = diverged
    client = mlflow.MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("mlp_tape").experiment_id])
    assert run.info.status == "FAILED"
    assert error.what in run.data.tags["reason"]
    assert len(client.list_artifacts(run.info.run_id, "divergence")) == 2
    for key in run.data.metrics:
        values = [row.value for row in client.get_metric_history(run.info.run_id, key)]
        assert np.isfinite(values).all()
        assert max(values) < 1e308  # which MLflow stores in place of infinity


def test_replay_shows_each_tensor_of_the_step(diverged: tuple[Path, DivergenceError]) -> None:
    _, error = diverged
    command = re.search(r"python (-m mlp_tape replay \S+)", error.hint)
    assert command
    done = subprocess.run(
        [sys.executable, *command[1].split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    first, header, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"step \d+, lr 3.0", first)
    assert header.split() == ["tensor", "shape", "dtype", "min", "max", "norm", "not", "finite"]
    names = [re.split(r"  +", line)[0] for line in lines]
    assert names[:8] == ["w1", "b1", "w2", "b2", "w3", "b3", "x", "z1"]
    columns = [re.split(r"  +", line) for line in lines]
    bad = next(each[0] for each in columns if len(each) == 7)  # with a count of non-finite values
    assert bad == re.findall(r"not finite is (.+)$", error.what)[0]


def test_divergence_in_an_update_is_traced_to_that_update(tmp_path: Path) -> None:
    settings = Settings(
        lr=1e39,  # infinite as float32
        dataset=DatasetSettings(name="digits"),
        tracking=TrackingSettings(enabled=False),
    )
    with pytest.raises(DivergenceError, match=r"at step 1 .* is w1 after the update of step 0\n") as caught:
        execute_run(settings, tmp_path, Command([], []))
    assert "lr" in caught.value.hint
    (saved,) = checkpoint.usable(tmp_path / "divergence", pytest.fail)
    assert saved.step == 0
    assert not list(tmp_path.glob("checkpoints/*"))  # resuming from it would only diverge again


def test_replay_rejects_a_run_that_did_not_diverge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains no diverged step"):
        list(divergence.replay(tmp_path))


def test_traced_step_equals_the_training_step() -> None:
    rng = np.random.default_rng(0)
    x = tf.constant(rng.integers(0, 256, (8, 4, 4), np.uint8))
    y = tf.constant(rng.integers(0, 3, 8).astype(np.int32))
    params = network.init_params([16, 5, 4, 3], 0.5, 0)
    config, lr = step_config("relu", "mse", "sgd", 255.0), tf.constant(0.1)
    before = {name: param.numpy() for name, param in params.items()}
    traced = trace.trace_step(State(network.as_params(before)), x, y, lr, config)
    loss, grads, _ = train_step.train_step(State(params), x, y, lr, config)
    assert list(traced)[6:13] == ["x", "z1", "h1", "z2", "h2", "logits", "loss"]
    np.testing.assert_array_equal(traced["loss"], loss)
    for name, param in params.items():
        np.testing.assert_array_equal(traced[name], before[name])
        np.testing.assert_array_equal(traced[f"gradient of {name}"], grads[name])
        np.testing.assert_array_equal(traced[f"{name} after the update"], param)
