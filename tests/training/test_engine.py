"""Compiled functions: which runs share them, and that sharing does not change what is computed."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from conftest import sample, train
from mlp_tape.data.datasets import Dataset
from mlp_tape.runs.trainer import step_config
from mlp_tape.tensors import network, optimizers
from mlp_tape.tensors.optimizers import Grads, Slot, Updates
from mlp_tape.training.engine import compiled_loop, separated
from mlp_tape.training.train_step import StepConfig

LOG_EVERY = 8
CONSTANTS = [  # of each, two values with an effect
    ("sgd", {"label_smoothing": (0.1, 0.3)}, {}),
    ("sgd", {"l2": (0.001, 0.01)}, {}),
    ("sgd", {"clip_norm": (0.1, 0.5)}, {}),
    ("sgd", {"dropout": (0.1, 0.4)}, {}),
    ("sgd", {"shift": (1.0, 2.5), "rotate": (5.0, 30.0)}, {}),
    ("momentum", {}, {"momentum": (0.5, 0.9)}),
    ("nesterov", {}, {"momentum": (0.5, 0.9)}),
    ("rmsprop", {}, {"rho": (0.8, 0.95), "epsilon": (1e-7, 1e-4)}),
    ("adam", {}, {"beta_1": (0.8, 0.9), "beta_2": (0.99, 0.999), "epsilon": (1e-7, 1e-4)}),
    (
        "adamw",
        {},
        {"weight_decay": (0.1, 0.5), "beta_1": (0.5, 0.9), "beta_2": (0.9, 0.99), "epsilon": (1e-7, 1e-3)},
    ),
]


def losses_of(dataset: Dataset, config: StepConfig, engine: str) -> np.ndarray:
    params = network.init_params([784, 24, 10], 0.1, seed=0)
    x, y = dataset.x_train[:512], dataset.y_train[:512]
    settings = {"lr": 0.05, "batch_size": 64, "epochs": 2, "log_every": LOG_EVERY}
    return np.concatenate([block.losses for block in train(params, x, y, config, engine=engine, **settings)])


@pytest.mark.parametrize(("rule", "constants", "of_rule"), sample(CONSTANTS, CONSTANTS[0], CONSTANTS[8]))
def test_runs_that_differ_in_constants_share_what_is_compiled(
    mnist_5k: Dataset, rule: str, constants: dict[str, Any], of_rule: dict[str, Any]
) -> None:
    configs = [
        step_config(
            "relu",
            "cross_entropy",
            rule,
            253.0,  # not used by any other test
            rule_settings={name: values[which] for name, values in of_rule.items()},
            **{name: values[which] for name, values in constants.items()},
        )
        for which in (0, 1)
    ]
    forms = {separated(config)[0] for config in configs}
    assert len(forms) == 1
    compiled = [losses_of(mnist_5k, config, "compiled") for config in configs]
    assert compiled_loop(forms.pop(), LOG_EVERY).experimental_get_tracing_count() == 1
    assert np.abs(compiled[0] - compiled[1]).max() > 1e-4
    for config, losses in zip(configs, compiled, strict=True):
        np.testing.assert_allclose(losses, losses_of(mnist_5k, config, "eager"), rtol=1e-5)


def test_constants_without_effect_cost_nothing() -> None:
    none = step_config("relu", "mse", "momentum", 255.0, rule_settings={"momentum": 0.0})
    assert separated(none) == (none, {})
    some = step_config("relu", "mse", "sgd", 255.0, dropout=0.1)
    assert separated(some)[0] != none


def shrinking(
    params: Slot, grads: Grads, lr: tf.Tensor, t: tf.Tensor, *, momentum: float, weight_decay: float
) -> Updates:
    """A user's own rule that decides in Python by settings that have the names of ours."""
    if momentum > 0.5 and weight_decay:
        return {name: lr * g for name, g in grads.items()}
    return {name: 2 * lr * g for name, g in grads.items()}


def test_settings_of_an_own_rule_are_numbers(mnist_5k: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = f"{__name__}.{shrinking.__name__}"
    settings = [{"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.1, "weight_decay": 0.1}]
    configs = [step_config("relu", "mse", rule, 255.0, rule_settings=each) for each in settings]
    assert configs[0].optimizer.rule not in optimizers.RULES.values()
    first, second = (losses_of(mnist_5k, config, "compiled") for config in configs)
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(first, losses_of(mnist_5k, configs[0], "eager"), rtol=1e-5)
