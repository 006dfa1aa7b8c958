"""Gradients match central differences, and a training step matches NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from conftest import train
from mlp_tape.runs.trainer import step_config
from mlp_tape.tensors import losses, network
from mlp_tape.training import train_step
from mlp_tape.training.state import State

CONFIG = step_config("relu", "mse", "sgd", 255.0)


def squared_error(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return losses.mse(losses.targets(y, logits), logits)


def random_batch(rng: np.random.Generator, size: int, shape: tuple[int, ...] = (28, 28)):
    return rng.integers(0, 256, (size, *shape)).astype(np.uint8), rng.integers(0, 10, size).astype(np.int32)


@pytest.mark.parametrize("hidden_sizes", [[], [7], [9, 7, 5, 6]])
def test_gradients_match_central_differences(hidden_sizes: list[int]) -> None:
    rng = np.random.default_rng(3)
    sizes = [12, *hidden_sizes, 10]
    drawn = network.init_params(sizes, 0.5, seed=1)
    params = {name: tf.Variable(tf.cast(param, tf.float64) + 0.1) for name, param in drawn.items()}
    x, y = tf.constant(rng.normal(size=(16, 12))), tf.constant(rng.integers(0, 10, 16))

    def loss() -> tf.Tensor:
        return squared_error(y, network.forward(params, x, tf.nn.relu))

    with tf.GradientTape() as tape:
        value = loss()
    grads = tape.gradient(value, params)
    for name, param in params.items():
        direction, at, h = rng.normal(size=param.shape), param.numpy(), 1e-6
        param.assign(at + h * direction)
        above = loss().numpy()
        param.assign(at - h * direction)
        below = loss().numpy()
        param.assign(at)
        expected = (above - below) / (2 * h)
        found = float(tf.reduce_sum(grads[name] * direction))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-10), name


def numpy_step(params: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, lr: float):
    """Computes a step of the original program in float64, with gradients derived by hand."""
    h0 = x.reshape(len(x), -1) / 255.0
    z1 = h0 @ params["w1"] + params["b1"]
    h1 = np.maximum(z1, 0)
    z2 = h1 @ params["w2"] + params["b2"]
    h2 = np.maximum(z2, 0)
    error = h2 @ params["w3"] + params["b3"] - np.eye(10)[y]
    d3 = 2 * error / error.size
    d2 = d3 @ params["w3"].T * (z2 > 0)
    d1 = d2 @ params["w2"].T * (z1 > 0)
    grads = {}
    for layer, (h, d) in enumerate([(h0, d1), (h1, d2), (h2, d3)], start=1):
        grads |= {f"w{layer}": h.T @ d, f"b{layer}": d.sum(axis=0)}
    return (error**2).mean(), {name: params[name] - lr * grads[name] for name in params}


def test_step_matches_numpy() -> None:
    rng = np.random.default_rng(0)
    params = network.init_params([784, 256, 128, 10], 0.1, seed=0)
    reference = {name: param.numpy().astype(np.float64) for name, param in params.items()}
    for size in (128, 96, 1):
        x, y = random_batch(rng, size)
        loss, _, _ = train_step.train_step(
            State(params), tf.constant(x), tf.constant(y), tf.constant(0.5), CONFIG
        )
        expected, reference = numpy_step(reference, x, y, 0.5)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        for name, param in params.items():
            np.testing.assert_allclose(param.numpy(), reference[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_loss_is_the_mean_over_batch_and_classes() -> None:
    logits = tf.constant([[1.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    assert float(squared_error(tf.constant([0, 1]), logits)) == pytest.approx((0 + 1 + 9) / 6)


def test_statistics_are_the_norms_of_the_first_step(mnist_5k) -> None:
    params = network.init_params([784, 16, 10], 0.1, seed=0)
    before = {name: param.numpy() for name, param in params.items()}
    x, y = mnist_5k.x_train[:64], mnist_5k.y_train[:64]
    (block,) = train(params, x, y, CONFIG, lr=0.25, batch_size=64, epochs=1, engine="eager")
    for name, param in params.items():
        update = before[name] - param.numpy()
        norm = np.linalg.norm(before[name])
        assert block.statistics[f"params/{name}/norm"] == pytest.approx(norm)
        assert block.statistics[f"grads/{name}/norm"] == pytest.approx(
            np.linalg.norm(update) / 0.25, rel=1e-3
        )
        if norm > 0:
            ratio = np.linalg.norm(update) / norm
            assert block.statistics[f"updates/{name}/ratio"] == pytest.approx(ratio, rel=1e-3)
        else:
            assert f"updates/{name}/ratio" not in block.statistics
