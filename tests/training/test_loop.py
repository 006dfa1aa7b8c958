"""The training loop: equal results in both engines, and reproducibility."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from conftest import train
from mlp_tape.config.settings import ModelSettings, Settings
from mlp_tape.data.datasets import Dataset
from mlp_tape.runs.trainer import Trainer, step_config
from mlp_tape.tensors import losses, network
from mlp_tape.tensors.optimizers import Grads, Optimizer, Slot, Updates
from mlp_tape.tensors.scale import Scale
from mlp_tape.training import batches, evaluation, host_arrays, train_step
from mlp_tape.training.engine import compiled_loop

CONFIG = step_config("relu", "mse", "sgd", 255.0)
SEED = {"lr": 0.001, "batch_size": 128, "epochs": 1}


def losses_of(dataset: Dataset, sizes: list[int], **settings) -> np.ndarray:
    params = network.init_params(sizes, 0.1, seed=0)
    blocks = train(params, dataset.x_train, dataset.y_train, CONFIG, **settings)
    return np.concatenate([block.losses for block in blocks])


def test_initial_weights_are_truncated_normal_and_biases_are_zero() -> None:
    params = network.init_params([784, 256, 128, 10], 0.1, seed=0)
    assert list(params) == ["w1", "b1", "w2", "b2", "w3", "b3"]
    assert [tuple(param.shape) for param in params.values()] == [
        (784, 256),
        (256,),
        (256, 128),
        (128,),
        (128, 10),
        (10,),
    ]
    for name, param in params.items():
        values = param.numpy()
        assert values.dtype == np.float32
        if name.startswith("b"):
            assert not values.any()
        else:
            assert np.abs(values).max() <= 0.2
            # truncation at two standard deviations reduces the standard deviation by a factor of 0.8796
            assert values.std() == pytest.approx(0.08796, rel=0.05)
            assert abs(values.mean()) < 0.01


def test_initial_weights_depend_only_on_the_seed() -> None:
    def draw(seed: int) -> np.ndarray:
        return network.init_params([784, 256, 10], 0.1, seed)["w1"].numpy()

    first = draw(7)
    tf.random.set_seed(123)
    np.random.seed(123)
    np.testing.assert_array_equal(first, draw(7))
    assert not np.array_equal(first, draw(8))
    assert np.isfinite(draw(2**32 - 1)).all()


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_each_run_in_a_process_starts_from_the_initial_weights(mnist_5k: Dataset, engine: str) -> None:
    model = ModelSettings(hidden_sizes=[16])
    trainer = Trainer(Settings(lr=0.1, epochs=1, engine=engine, model=model), mnist_5k)
    first = network.init_params([784, 16, 10], 0.1, seed=0)
    for _ in range(2):
        now = trainer.state_at(None)
        params = now.params
        for name, param in params.items():
            np.testing.assert_array_equal(param.numpy(), first[name].numpy())
        assert list(trainer.train(now))
        assert not np.array_equal(params["w1"].numpy(), first["w1"].numpy())


def test_both_engines_compute_the_same_losses_including_the_partial_batch(mnist_5k: Dataset) -> None:
    sizes = [784, 256, 128, 10]
    settings = SEED | {"epochs": 2, "batch_size": 96, "log_every": 10}  # 4,000 = 41 * 96 + 64
    eager = losses_of(mnist_5k, sizes, engine="eager", **settings)
    compiled = losses_of(mnist_5k, sizes, engine="compiled", **settings)
    assert len(eager) == len(compiled) == 2 * 42
    np.testing.assert_allclose(compiled, eager, atol=1e-5)


@pytest.mark.long
def test_epoch_of_mnist_has_469_steps_in_both_engines(mnist_npz: str) -> None:
    from mlp_tape.data import datasets

    mnist = datasets.load("mnist", mnist_npz)
    eager = losses_of(mnist, [784, 256, 128, 10], engine="eager", **SEED)
    compiled = losses_of(mnist, [784, 256, 128, 10], engine="compiled", **SEED)
    assert len(eager) == len(compiled) == 469
    assert 0.25 < eager[0] < 0.8
    np.testing.assert_allclose(compiled, eager, atol=1e-5)


@pytest.mark.parametrize("n", [1, 5, 6, 7, 12, 13])
@pytest.mark.parametrize("log_every", [1, 2, 3, 100])
def test_blocks_cover_each_step_once_in_order(n: int, log_every: int) -> None:
    x, y = np.zeros((n, 4), np.float32), np.arange(n, dtype=np.int32) % 2
    params = network.init_params([4, 2], 0.1, seed=0)
    blocks = list(
        train(params, x, y, CONFIG, lr=0.1, batch_size=6, epochs=2, log_every=log_every, engine="eager")
    )
    per_epoch = -(-n // 6)
    steps = [block.global_step + i for block in blocks for i in range(len(block.losses))]
    assert steps == list(range(2 * per_epoch))
    ends = [block.step + len(block.losses) for block in blocks]
    assert all(
        end <= (block.step // log_every + 1) * log_every for end, block in zip(ends, blocks, strict=True)
    )
    logged = [block.step for block in blocks if block.statistics]
    assert logged == 2 * list(range(0, per_epoch, log_every))
    assert [block.epoch for block in blocks if block.ends_epoch] == [0, 1]
    assert all(block.global_step == block.epoch * per_epoch + block.step for block in blocks)


def test_each_step_uses_the_next_images_in_file_order() -> None:
    """Each image is its own number, and the loss is their sum, which identifies the batch."""
    n, size = 23, 5
    x = np.arange(n, dtype=np.float32)[:, None]
    y = np.zeros(n, np.int32)

    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(logits[:, 0])  # with w1 = 1 and no updates: the sum of the images' numbers

    def no_update(params: Slot, grads: Grads, lr: tf.Tensor, t: tf.Tensor) -> Updates:
        return {name: 0 * grad for name, grad in grads.items()}

    config = train_step.StepConfig(tf.identity, loss, Optimizer(no_update), Scale())
    for engine in ("eager", "compiled"):
        params = {"w1": tf.Variable(tf.ones([1, 2])), "b1": tf.Variable(tf.zeros([2]))}
        blocks = train(params, x, y, config, lr=1.0, batch_size=size, epochs=1, log_every=3, engine=engine)
        sums = np.concatenate([block.losses for block in blocks])
        np.testing.assert_array_equal(sums, [x[i : i + size].sum() for i in range(0, n, size)])


def test_shuffling_is_a_function_of_seed_and_epoch(mnist_5k: Dataset) -> None:
    def shuffled(seed: int | None) -> np.ndarray:
        return losses_of(mnist_5k, [784, 10], lr=0.1, batch_size=500, epochs=2, shuffle_seed=seed)

    np.testing.assert_array_equal(shuffled(1), shuffled(1))
    assert not np.array_equal(shuffled(1), shuffled(2))
    assert not np.array_equal(shuffled(1), shuffled(None))


@pytest.mark.parametrize("engine", ["compiled", "eager"])
@pytest.mark.parametrize("seed", [None, 3])
def test_images_that_are_streamed_train_like_those_in_memory(
    mnist_5k: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, seed: int | None
) -> None:
    np.save(tmp_path / "x.npy", mnist_5k.x_train[:1111])
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "shifted").write_bytes(b"\0" + content)  # so that TensorFlow cannot use the memory
    offset = 1 + len(content) - 1111 * 784
    mapped = np.memmap(tmp_path / "shifted", np.uint8, "r", offset, (1111, 28, 28))

    def trained(x: np.ndarray) -> list:
        params = network.init_params([784, 16, 10], 0.1, seed=0)
        limits = {"epochs": 2, "log_every": 20, "batch_size": 30, "lr": 0.1, "first": 40}
        y = mnist_5k.y_train[:1111]
        blocks = train(params, x, y, CONFIG, engine=engine, shuffle_seed=seed, **limits)
        losses = np.concatenate([block.losses for block in blocks])
        return [losses, *(param.numpy() for param in params.values())]

    expected = trained(mnist_5k.x_train[:1111])
    monkeypatch.setattr(batches, "LARGE", 0)
    monkeypatch.setattr(batches, "WINDOW", 7 * 30 * 784)  # seven batches
    for found, wanted in zip(trained(mapped), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(expected[0]) == 2 * 38 - 40


def test_memory_mapped_images_are_not_copied(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((9, 4), np.uint8))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    assert host_arrays.is_usable(mapped)
    for array in (mapped, mapped[1:], np.asarray(mapped), np.asarray(mapped)[3:]):
        assert np.shares_memory(host_arrays.aligned(array, np.uint8), mapped)
    assert not np.shares_memory(host_arrays.aligned(mapped, np.float32), mapped)


def test_network_is_compiled_once_for_all_runs_of_the_same_shape(mnist_5k: Dataset) -> None:
    config = step_config("relu", "mse", "sgd", 254.0)  # not used by any other test
    x, y = mnist_5k.x_train[:1000], mnist_5k.y_train[:1000]
    for lr in (0.1, 0.01, 0.001):
        params = network.init_params([784, 32, 10], 0.1, seed=0)
        for _ in train(params, x, y, config, lr=lr, batch_size=64, epochs=2, log_every=4):
            pass
    compiled = compiled_loop(config, 4)
    assert compiled.experimental_get_tracing_count() == 2  # full batches, and the smaller last one


def test_256_images_can_be_overfitted(mnist_5k: Dataset) -> None:
    x, y = mnist_5k.x_train[:256], mnist_5k.y_train[:256]
    params = network.init_params([784, 256, 128, 10], 0.1, seed=0)
    for _ in train(params, x, y, CONFIG, lr=0.5, batch_size=32, epochs=100):
        pass
    assert evaluation.evaluate(params, x, y, CONFIG).accuracy == 1.0


def test_evaluation_in_chunks_matches_a_direct_computation(
    mnist_5k: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ROWS", 1_000)  # 3,001 = 3 * 1,000 + 1
    params = network.init_params([784, 16, 10], 0.1, seed=0)
    x, y = mnist_5k.x_train[:3001], mnist_5k.y_train[:3001]
    logits = network.forward(params, network.to_float(tf.constant(x), Scale((255.0,))), tf.nn.relu)
    expected = float(losses.mse(losses.targets(tf.constant(y), logits), logits))
    result = evaluation.evaluate(params, x, y, CONFIG)
    assert result.loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(result.predictions, np.argmax(logits.numpy(), axis=1))
    assert result.accuracy == pytest.approx(float(np.mean(np.argmax(logits.numpy(), axis=1) == y)))


WEIGHTS_HASH = """
import hashlib, sys
from mlp_tape.data import datasets
from mlp_tape.runs.trainer import step_config
from mlp_tape.tensors import network
from mlp_tape.tensors.schedules import LearningRate
from mlp_tape.training import loop
from mlp_tape.training.batches import Batches
from mlp_tape.training.loop import LoopConfig
from mlp_tape.training.state import initial
d = datasets.load("mnist_5k")
params = network.init_params([784, 256, 128, 10], 0.1, 0)
config = step_config("relu", "mse", "sgd", 255.0)
state, batches = initial(params, config.optimizer), Batches(d.x_train, d.y_train, 128)
for _ in loop.train(state, batches, config, LearningRate(0.1), LoopConfig(1)): pass
print(hashlib.sha256(b"".join(p.numpy().tobytes() for p in params.values())).hexdigest())
"""


@pytest.mark.long
def test_another_process_repeats_a_compiled_run_bit_for_bit(mnist_5k: Dataset) -> None:
    params = network.init_params([784, 256, 128, 10], 0.1, seed=0)
    x, y = mnist_5k.x_train, mnist_5k.y_train
    for _ in train(params, x, y, CONFIG, lr=0.1, batch_size=128, epochs=1):
        pass
    expected = hashlib.sha256(b"".join(param.numpy().tobytes() for param in params.values())).hexdigest()
    other = subprocess.run([sys.executable, "-c", WEIGHTS_HASH], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == expected


def train_one_block(params: network.Params, dataset: Dataset, engine: str) -> None:
    x, y = dataset.x_train, dataset.y_train
    next(train(params, x, y, CONFIG, lr=0.1, batch_size=64, epochs=1, engine=engine))


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_parameter_that_is_not_a_variable_raises_a_helpful_error(mnist_5k: Dataset, engine: str) -> None:
    params = network.init_params([784, 10], 0.1, seed=0)
    params["w1"] = params["w1"] - 0.1  # first pitfall of the original program: it is a tf.Tensor now
    with pytest.raises(train_step.PitfallError, match=r"w1 .*tf\.Variable only.*assign_sub"):
        train_one_block(params, mnist_5k, engine)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_loss_independent_of_a_parameter_raises_a_helpful_error(mnist_5k: Dataset, engine: str) -> None:
    params = network.init_params([784, 10], 0.1, seed=0)
    params["b2"] = tf.Variable([1.0])
    with pytest.raises(train_step.PitfallError, match=r"gradient of b2 is None.*inside the tape"):
        train_one_block(params, mnist_5k, engine)
