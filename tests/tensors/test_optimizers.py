"""Each update rule goes where Keras's own goes."""

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


def peer(name: str) -> Any:
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
    rng = np.random.default_rng(0)
    shapes, scales = {"w1": (7, 5), "b1": (5,)}, 10.0 ** rng.uniform(-3, 1, STEPS)
    return [
        {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
        for scale in scales
    ]


def go(name: str, engine: str) -> list[dict[str, np.ndarray]]:
    """The parameters after each step."""
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
def test_a_rule_goes_where_that_of_keras_goes(name: str, engine: str) -> None:
    theirs, params = peer(name), {key: tf.Variable(np.ones_like(a)) for key, a in gradients()[0].items()}
    for grads, mine in zip(gradients(), go(name, engine), strict=True):
        theirs.apply_gradients([(tf.constant(grads[key]), params[key]) for key in params])
        for key, param in params.items():
            np.testing.assert_allclose(mine[key], param.numpy(), rtol=2e-5, atol=2e-6, err_msg=key)
    assert not np.allclose(mine["w1"], 1, atol=0.01)


def test_the_settings_of_a_rule_are_its_keywords() -> None:
    assert set(RULE_SETTINGS) == set(RULES)
    for name, rule in RULES.items():
        kinds = inspect.signature(rule).parameters.values()
        keywords = {each.name for each in kinds if each.kind is each.KEYWORD_ONLY}
        if name == "adamw":
            keywords |= set(inspect.signature(RULES["adam"]).parameters) - set(POSITIONAL)
        given = options("optimizer")[name]
        assert given.pop("name") == name
        assert set(RULE_SETTINGS[name]) == keywords == set(given) == set(SETTINGS[name])


@pytest.mark.parametrize("most", [0.5, 1e6])
def test_gradients_are_clipped_as_tensorflow_clips_them(most: float) -> None:
    grads = {name: tf.constant(array) for name, array in gradients()[0].items()}
    expected, _ = tf.clip_by_global_norm(list(grads.values()), most)
    for mine, theirs in zip(optimizers.clipped(grads, most).values(), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
