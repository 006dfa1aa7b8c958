"""A training step that returns every tensor it computes."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.training.state import State
from mlp_tape.training.train_step import StepConfig, train_step


def trace_step(
    state: State, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor, config: StepConfig
) -> dict[str, tf.Tensor]:
    """Runs `train_step`, which updates the state, and returns its tensors by name.

    Args:
        state: state before the step; updated in place.
        x: images, uint8 or float32 [b, ...].
        y: labels, int32 [b].
        lr: learning rate, float32 [].
        config: functions and constants that define the step.

    Returns:
        In order of computation: the parameters before the step, x, z1, h1, ..., logits, loss,
        `gradient of b3`, ... from the last parameter to the first, and `w1 after the update`, ...
    """
    trace = {name: tf.convert_to_tensor(param) for name, param in state.params.items()}
    step = train_step(state, x, y, lr, config, trace)
    trace["loss"] = step.loss
    trace |= {f"gradient of {name}": step.grads[name] for name in reversed(state.params)}
    return trace | {
        f"{name} after the update": tf.convert_to_tensor(param) for name, param in state.params.items()
    }


def arrays_of_step(
    state: State, x: NDArray[Any], y: NDArray[np.int32], lr: float, config: StepConfig
) -> dict[str, NDArray[Any]]:
    """Returns the tensors that `trace_step` returns for a batch of arrays, as arrays."""
    traced = trace_step(state, tf.constant(x), tf.constant(y), tf.constant(lr, tf.float32), config)
    return {name: tensor.numpy() for name, tensor in traced.items()}
