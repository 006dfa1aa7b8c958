"""Update rules match the optimizers of Keras."""

import inspect
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from mlp_tape.config.settings import RULE_SETTINGS, options
from mlp_tape.tensors import optimizers
from mlp_tape.tensors.optimizers import RULES, Optimizer

SETTINGS: dict[str, dict[str, float]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9},
    "rmsprop": {"rho": 0.9, "epsilon": 1e-7},
    "adam": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "adamw": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004},
}
STEPS = 100
POSITIONAL = ("params", "grads", "lr", "t", "m", "v")


def keras_optimizer(name: str) -> Any:
    """Returns the Keras optimizer that corresponds to an update rule."""
    kinds = {
        "sgd": keras.optimizers.SGD,
        "momentum": keras.optimizers.SGD,
        "nesterov": lambda **more: keras.optimizers.SGD(nesterov=True, **more),
        "rmsprop": keras.optimizers.RMSprop,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
    }
    return kinds[name](learning_rate=0.01, **SETTINGS[name])


def gradients() -> list[dict[str, np.ndarray]]:
    """Returns random gradients for each step, of widely varying magnitude."""
    rng = np.random.default_rng(0)
    shapes, scales = {"w1": (7, 5), "b1": (5,)}, 10.0 ** rng.uniform(-3, 1, STEPS)
    return [
        {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
        for scale in scales
    ]


def run_optimizer(name: str, engine: str) -> list[dict[str, np.ndarray]]:
    """Returns the parameters after each step."""
    rule = Optimizer(RULES[name], tuple(SETTINGS[name].items()))
    params = {key: tf.Variable(np.ones_like(array)) for key, array in gradients()[0].items()}
    slots, lr = optimizers.empty_slots(rule, params), tf.constant(0.01)

    def step(grads: dict[str, tf.Tensor], t: tf.Tensor) -> None:
        updates = rule(params, grads, lr, t, slots)
        for key, param in params.items():
            param.assign_sub(updates[key])

    if engine == "compiled":
        step = tf.function(step, jit_compile=True)
    found = []
    for number, grads in enumerate(gradients(), start=1):
        step({key: tf.constant(array) for key, array in grads.items()}, tf.constant(float(number)))
        found.append({key: param.numpy() for key, param in params.items()})
    return found


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("name", RULES)
def test_update_rule_matches_keras(name: str, engine: str) -> None:
    reference = keras_optimizer(name)
    params = {key: tf.Variable(np.ones_like(array)) for key, array in gradients()[0].items()}
    for grads, actual in zip(gradients(), run_optimizer(name, engine), strict=True):
        reference.apply_gradients([(tf.constant(grads[key]), params[key]) for key in params])
        for key, param in params.items():
            np.testing.assert_allclose(actual[key], param.numpy(), rtol=2e-5, atol=2e-6, err_msg=key)
    assert not np.allclose(actual["w1"], 1, atol=0.01)


def test_settings_of_an_update_rule_are_its_keyword_arguments() -> None:
    assert set(RULE_SETTINGS) == set(RULES)
    for name, rule in RULES.items():
        kinds = inspect.signature(rule).parameters.values()
        keywords = {each.name for each in kinds if each.kind is each.KEYWORD_ONLY}
        if name == "adamw":
            keywords |= set(inspect.signature(RULES["adam"]).parameters) - set(POSITIONAL)
        given = options("optimizer")[name]
        assert given.pop("name") == name
        assert set(RULE_SETTINGS[name]) == keywords == set(given) == set(SETTINGS[name])


@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_clipping_matches_tensorflow(clip_norm: float) -> None:
    grads = {name: tf.constant(array) for name, array in gradients()[0].items()}
    expected, _ = tf.clip_by_global_norm(list(grads.values()), clip_norm)
    for actual, reference in zip(optimizers.clipped(grads, clip_norm).values(), expected, strict=True):
        np.testing.assert_allclose(actual, reference, rtol=1e-6)
