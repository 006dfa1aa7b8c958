"""Losses, activations, initializers, schedules and augmentation match reference implementations."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import tensorflow as tf

from mlp_tape.config.settings import SCHEDULE_SETTINGS, ModelSettings, ScheduleSettings, Settings, options
from mlp_tape.runs.trainer import step_config
from mlp_tape.tensors import (
    activations,
    augmentation,
    initializers,
    losses,
    network,
    random_numbers,
    schedules,
)
from mlp_tape.tensors.activations import ACTIVATIONS
from mlp_tape.tensors.initializers import INITIALIZERS
from mlp_tape.tensors.losses import LOSSES
from mlp_tape.tensors.schedules import SCHEDULES

RNG = np.random.default_rng(0)
Y, LOGITS = RNG.integers(0, 10, 64), 3 * RNG.normal(size=(64, 10))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_matches_keras(name: str, smoothing: float) -> None:
    targets = losses.targets(tf.constant(Y), tf.constant(LOGITS), smoothing)
    one_hot = tf.one_hot(Y, 10, dtype=tf.float64)
    if name == "mse":
        expected = tf.reduce_mean(tf.square(one_hot * (1 - smoothing) + smoothing / 10 - LOGITS))
    else:
        peer = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        expected = peer(one_hot, LOGITS)
    assert float(LOSSES[name](targets, tf.constant(LOGITS))) == pytest.approx(float(expected), rel=1e-6)


def test_cross_entropy_of_large_logits_is_finite() -> None:
    logits = tf.Variable([[1e30, -1e30, 0.0], [88.0, 89.0, 90.0]])
    with tf.GradientTape() as tape:
        loss = losses.cross_entropy(losses.targets(tf.constant([0, 2]), logits), logits)
    assert float(loss) == pytest.approx(0.5 * 0.40760596, rel=1e-6)
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_l2_penalty_matches_keras_and_excludes_biases() -> None:
    params = network.init_params([5, 4, 3], 0.5, 0)
    params["b1"].assign([1.0, 2.0, 3.0, 4.0])
    expected = sum(float(keras.regularizers.L2(1.0)(params[name].numpy())) for name in ("w1", "w2"))
    assert float(losses.l2(params)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_its_gradient_match_tensorflow(name: str) -> None:
    z = tf.Variable(np.concatenate([np.linspace(-30, 30, 601), [1e30, -1e30, 0.0]]).astype(np.float32))
    peer = getattr(tf, name, None) or getattr(tf.nn, name)
    values, gradients = [], []
    for function in (ACTIVATIONS[name], peer):
        with tf.GradientTape() as tape:
            value = function(z)
        values.append(value.numpy())
        gradients.append(tape.gradient(value, z).numpy())
    np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_served_activation_matches_the_trained_one(name: str) -> None:
    from mlp_tape.mlflow_backend import pyfunc_model

    z = np.linspace(-20, 20, 401).astype(np.float32)
    served = pyfunc_model.ACTIVATIONS[name](z)
    assert served.dtype == np.float32
    np.testing.assert_allclose(served, ACTIVATIONS[name](tf.constant(z)).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_of_each_loss_and_activation_matches_central_differences(activation: str, loss: str) -> None:
    config = step_config(activation, loss, "sgd", 1.0, label_smoothing=0.1, l2=0.01, precision="float64")
    drawn = network.init_params([12, 9, 8, 10], 0.5, 1)
    params = {name: tf.Variable(tf.cast(param, tf.float64) + 0.1) for name, param in drawn.items()}
    x, y = tf.constant(RNG.normal(size=(16, 12))), tf.constant(RNG.integers(0, 10, 16))

    def objective() -> tf.Tensor:
        logits = network.forward(params, x, config.activation)
        return config.loss(losses.targets(y, logits, 0.1), logits) + 0.01 * losses.l2(params)

    with tf.GradientTape() as tape:
        value = objective()
    for name, gradient in tape.gradient(value, params).items():
        param, direction, h = params[name], RNG.normal(size=params[name].shape), 1e-6
        at, sides = param.numpy(), []
        for side in (h, -h):
            param.assign(at + side * direction)
            sides.append(float(objective()))
        param.assign(at)
        expected = (sides[0] - sides[1]) / (2 * h)
        assert float(tf.reduce_sum(gradient * direction)) == pytest.approx(expected, rel=1e-6, abs=1e-9), name


def truncated_normal(variance: float) -> Any:
    """Returns the normal distribution truncated at two standard deviations, with a given variance."""
    return scipy.stats.truncnorm(-2, 2, scale=np.sqrt(variance) / scipy.stats.truncnorm.std(-2, 2))


# For each initializer: its distribution, and the initializer of Keras.
DISTRIBUTIONS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "truncated_normal": (
        scipy.stats.truncnorm(-2, 2, scale=0.3),
        lambda: keras.initializers.TruncatedNormal(stddev=0.3),
    ),
    "he": (truncated_normal(2 / 300), keras.initializers.HeNormal),
    "lecun": (truncated_normal(1 / 300), keras.initializers.LecunNormal),
    "glorot": (
        scipy.stats.uniform(-np.sqrt(6 / 500), 2 * np.sqrt(6 / 500)),
        keras.initializers.GlorotUniform,
    ),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_initial_weights_have_the_same_distribution_as_in_keras(name: str) -> None:
    distribution, peer = DISTRIBUTIONS[name]
    keras.utils.set_random_seed(0)  # else one run of hundreds fails
    actual = INITIALIZERS[name]([300, 200], [3, 1], 0.3).numpy().ravel()
    reference = np.asarray(peer()((300, 200))).ravel()
    for drawn in (actual, reference):
        assert scipy.stats.kstest(drawn, distribution.cdf).pvalue > 1e-3
    assert actual.std() == pytest.approx(reference.std(), rel=0.02)
    np.testing.assert_array_equal(actual, INITIALIZERS[name]([300, 200], [3, 1], 0.3).numpy().ravel())
    assert not np.array_equal(actual, INITIALIZERS[name]([300, 200], [4, 1], 0.3).numpy().ravel())


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (20, 20)])
def test_orthogonal_initializer_returns_an_orthogonal_matrix(shape: tuple[int, int]) -> None:
    q = initializers.orthogonal(shape, [0, 1], 1.0).numpy()
    small = q.T @ q if shape[0] >= shape[1] else q @ q.T
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-5)
    assert not np.array_equal(q, initializers.orthogonal(shape, [1, 1], 1.0).numpy())


def test_choices_of_the_settings_are_the_available_functions() -> None:
    def choices(settings: type, name: str) -> str:
        return str(settings.__dataclass_fields__[name].metadata["expected"])

    for settings, name, known in (
        (ModelSettings, "activation", ACTIVATIONS),
        (ModelSettings, "init", INITIALIZERS),
        (Settings, "loss", LOSSES),
        (ScheduleSettings, "name", SCHEDULES),
    ):
        assert choices(settings, name).startswith(f"one of: {', '.join(known)}")


TOTAL, PER_EPOCH = 200, 20
STEP = np.arange(TOTAL, dtype=np.float64)
PEERS: dict[str, tuple[dict[str, float], Callable[[int], float]]] = {
    "constant": ({}, lambda i: 1.0),
    "step": ({"every_epochs": 3, "factor": 0.5}, lambda i: 0.5 ** (i // 60)),
    "exponential": (
        {"factor": 0.9},
        keras.optimizers.schedules.ExponentialDecay(1.0, PER_EPOCH, 0.9),
    ),
    "cosine": ({"final": 0.1}, keras.optimizers.schedules.CosineDecay(1.0, TOTAL, alpha=0.1)),
}


@pytest.mark.parametrize("name", PEERS)
def test_schedule_matches_keras(name: str) -> None:
    settings, peer = PEERS[name]
    found = SCHEDULES[name](tf.constant(STEP), TOTAL, PER_EPOCH, **settings)
    np.testing.assert_allclose(found, [float(peer(i)) for i in range(TOTAL)], rtol=1e-5)


def test_one_cycle_schedule_matches_pytorch() -> None:
    """The reference is OneCycleLR with its defaults div_factor=25 and final_div_factor=1e4."""
    torch = pytest.importorskip("torch")
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(sgd, 1.0, total_steps=TOTAL)
    expected = []
    for _ in range(TOTAL):
        expected.append(peer.get_last_lr()[0])
        sgd.step()
        peer.step()
    found = schedules.one_cycle(tf.constant(STEP), TOTAL, PER_EPOCH, rising=0.3, start=1 / 25, final=4e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_one_cycle_rises_from_start_to_one_and_falls_to_final() -> None:
    found = schedules.one_cycle(
        tf.constant(STEP), TOTAL, PER_EPOCH, rising=0.3, start=0.04, final=0.001
    ).numpy()
    assert found[[0, 59, 199]] == pytest.approx([0.04, 1.0, 0.001])
    assert (np.diff(found[:60]) > 0).all()
    assert (np.diff(found[59:]) < 0).all()
    assert found[[29, 30]].mean() == pytest.approx(0.52, abs=0.01)  # halfway through the rising phase
    for total in (1, 2, 3, 4, 10):
        steps = tf.range(total, dtype=tf.float64)
        assert np.isfinite(schedules.one_cycle(steps, total, 1, rising=0.5, start=0.1, final=0.0)).all()


def test_warmup_is_linear_and_followed_by_the_schedule() -> None:
    share = schedules.warmed_up(schedules.cosine, 20)
    found = share(tf.constant(STEP), TOTAL, PER_EPOCH, final=0.0).numpy()
    np.testing.assert_allclose(found[:20], np.arange(1, 21) / 20)
    rest = schedules.cosine(tf.range(180, dtype=tf.float64), 180, PER_EPOCH, final=0.0)
    np.testing.assert_allclose(found[20:], rest, rtol=1e-12)
    assert schedules.warmed_up(schedules.cosine, 0) is schedules.cosine


def test_settings_of_a_schedule_are_its_keyword_arguments() -> None:
    assert set(SCHEDULES) == set(SCHEDULE_SETTINGS)
    for name, values in options("schedule").items():
        assert set(values) == {"name", "warmup_epochs", *SCHEDULE_SETTINGS[name]}
    for name, share in SCHEDULES.items():
        assert set(share.__kwdefaults__ or share.__annotations__) >= set(SCHEDULE_SETTINGS[name])


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known-answer tests of Random123, the library that accompanies the paper
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_reproduces_the_known_answers(
    counter: tuple[int, int], key: tuple[int, int], expected: tuple[int, int], engine: str
) -> None:
    draw = (
        random_numbers.threefry
        if engine == "eager"
        else tf.function(random_numbers.threefry, jit_compile=True)
    )
    words = [[tf.constant(word, tf.uint32) for word in pair] for pair in (counter, key)]
    assert tuple(int(word) for word in draw(*words)) == expected


def test_random_numbers_are_uniform_and_streams_are_uncorrelated() -> None:
    drawn = {
        stream: random_numbers.uniform([1001, 99], stream).numpy().ravel()
        for stream in ((7, 0, 0), (7, 1, 0), (7, 0, 1), (8, 0, 0), (2**32 - 1, 2**32 - 1, 0))
    }
    for stream, values in drawn.items():
        assert values.dtype == np.float32
        assert 0 <= values.min() < values.max() < 1
        assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02
        for other, others in drawn.items():
            assert other == stream or abs(np.corrcoef(values, others)[0, 1]) < 0.02
    again = tf.function(lambda step: random_numbers.uniform([1001, 99], (7, step, 0)), jit_compile=True)
    np.testing.assert_array_equal(again(tf.constant(1, tf.int64)).numpy().ravel(), drawn[7, 1, 0])


def test_dropout_drops_the_given_fraction_and_rescales_the_rest() -> None:
    h = tf.ones([200, 300])
    dropped = activations.dropout(h, 0.25, (7, 0, 1)).numpy()
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(dropped, activations.dropout(h, 0.25, (7, 0, 1)))
    for other in ((7, 1, 1), (7, 0, 2)):
        assert not np.array_equal(dropped, activations.dropout(h, 0.25, other))


@pytest.mark.parametrize(("shift", "rotate"), [(3.0, 0.0), (0.0, 30.0), (2.5, 15.0)])
def test_augmentation_matches_scipy(shift: float, rotate: float) -> None:
    images = scipy.ndimage.gaussian_filter(RNG.random((5, 28, 20)), (0, 1, 1)).astype(np.float32)
    found = augmentation.moved(tf.constant(images), shift, rotate, (7, 3, 1)).numpy()
    draw = 2 * random_numbers.uniform([3, 5], (7, 3, 1)).numpy() - 1
    centre = np.array([13.5, 9.5])
    for image, moved, (down, right, angle) in zip(images, found, draw.T, strict=True):
        a = np.radians(rotate) * angle
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        offset = centre - turn @ (centre + shift * np.array([down, right]))
        wide = np.pad(image, 5)  # at the border, SciPy interpolates differently
        offset += 5 - turn @ [5, 5]
        expected = scipy.ndimage.affine_transform(wide, turn, offset, order=1)[5:-5, 5:-5]
        np.testing.assert_allclose(moved, expected, atol=2e-5)
    assert not np.allclose(found[0], images[0], atol=0.01)


def test_augmentation_without_movement_leaves_images_unchanged() -> None:
    images = RNG.random((3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        augmentation.moved(tf.constant(images), 0.0, 0.0, (7, 0, 1)), images, atol=1e-6
    )
