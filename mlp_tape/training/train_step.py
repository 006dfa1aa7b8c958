"""One step of gradient descent: forward, loss, gradients from the tape, update in place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from mlp_tape.tensors import activations, augmentation, losses, network, optimizers
from mlp_tape.tensors.activations import Activation
from mlp_tape.tensors.losses import Loss
from mlp_tape.tensors.network import Dropout, Params, forward
from mlp_tape.tensors.optimizers import Grads, Optimizer, Updates
from mlp_tape.training.state import State


@dataclass(frozen=True)
class StepConfig:
    """The functions and numbers that define a step.

    Attributes:
        activation: between the layers.
        loss: of targets [b, classes] and logits [b, classes], a scalar.
        optimizer: from gradients and learning rate to updates.
        scale: what images are divided by.
        label_smoothing: of the targets, from 0 to below 1.
        l2: the factor of the sum of the squares of the weights in the loss, from 0.
        clip_norm: the upper limit of the global norm of the gradients; None for no limit.
        dropout: the fraction of each hidden layer that is dropped, from 0 to below 1.
        shift: the upper limit of the shift of an image, in pixels.
        rotate: the upper limit of the rotation of an image, in degrees.
        precision: of forward and backward pass: float32, bfloat16 or float64. Parameters stay float32.
    """

    activation: Activation
    loss: Loss
    optimizer: Optimizer
    scale: float
    label_smoothing: float = 0.0
    l2: float = 0.0
    clip_norm: float | None = None
    dropout: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    precision: str = "float32"


class Step(NamedTuple):
    """What a step computed.

    Attributes:
        loss: before the update, float32 [].
        grads: d loss / d param, by the parameter's name.
        updates: what was subtracted from each parameter.
    """

    loss: tf.Tensor
    grads: Grads
    updates: Updates


class PitfallError(TypeError):
    """One of the two mistakes with which the tape computes no gradient."""


def train_step(
    state: State,
    x: tf.Tensor,
    y: tf.Tensor,
    lr: tf.Tensor,
    config: StepConfig,
    trace: dict[str, tf.Tensor] | None = None,
) -> Step:
    """Runs one step: forward, loss, gradients from the tape, update in place.

    Args:
        state: whose variables are updated; its `global_step` is the caller's to increase.
        x: uint8 or float32 [b, ...].
        y: int32 [b].
        lr: float32 [].
        config: what defines the step.
        trace: is filled with the tensors of the forward pass, as by `forward`.

    Raises:
        PitfallError: a parameter is not a `tf.Variable`, or the loss does not depend on it.
    """
    check_variables(state.params)
    x = inputs(x, state, config)  # [b,28,28] -> [b,784]
    with tf.GradientTape() as tape:  # records operations on tf.Variable, and on nothing else
        params = cast(state.params, config.precision)
        logits = forward(params, x, config.activation, dropout(state, config), trace)  # [b,784] -> [b,10]
        loss = objective(logits, y, state.params, config)  # [b,10], [b] -> []
    grads = tape.gradient(loss, state.params)
    check_gradients(grads)
    clipped = optimizers.clipped(grads, config.clip_norm)
    t = tf.cast(state.global_step + 1, tf.float32)
    updates = config.optimizer(state.params, clipped, lr, t, state.slots)
    for name, param in state.params.items():
        param.assign_sub(updates[name])  # in place: the name still refers to the same tf.Variable
    return Step(loss, grads, updates)


def inputs(x: tf.Tensor, state: State, config: StepConfig) -> tf.Tensor:
    """The images of a step as rows of floats, [b, ...] -> [b, d], shifted and rotated where that is set."""
    if config.shift or config.rotate:
        stream = (state.seed, state.global_step, 0)
        x = augmentation.moved(tf.cast(x, tf.float32), config.shift, config.rotate, stream)
    return network.to_float(x, config.scale, tf.as_dtype(config.precision))


def cast(params: Mapping[str, tf.Tensor], precision: str) -> Mapping[str, tf.Tensor]:
    """The parameters in the precision of the forward pass; gradients flow through the cast."""
    if precision == "float32":
        return params
    return {name: tf.cast(param, precision) for name, param in params.items()}


def dropout(state: State, config: StepConfig) -> Dropout | None:
    """The dropout of a step, as `forward` takes it; None where nothing is dropped."""
    if not config.dropout:
        return None
    return lambda layer, h: activations.dropout(h, config.dropout, (state.seed, state.global_step, layer))


def objective(
    logits: tf.Tensor, y: tf.Tensor, params: Mapping[str, tf.Tensor], config: StepConfig
) -> tf.Tensor:
    """What a step minimizes, float32 []: the loss with smoothed labels, and the weights' squares."""
    if config.precision == "bfloat16":  # three digits, too few to add up a loss
        logits = tf.cast(logits, tf.float32)
    targets = losses.targets(y, logits, config.label_smoothing)  # [b] -> [b,10]
    loss = tf.cast(config.loss(targets, logits), tf.float32)  # [b,10], [b,10] -> []
    return loss + config.l2 * losses.l2(params) if config.l2 else loss


def check_variables(params: Params) -> None:
    """Refuses a parameter that is not a `tf.Variable`."""
    for name, param in params.items():
        if not isinstance(param, tf.Variable):
            raise PitfallError(
                f"{name} is of type {type(param).__name__}, and the tape records tf.Variable only, so its "
                f"gradient would be None. `{name} = {name} - lr * grad` makes a tf.Tensor of a tf.Variable: "
                f"write {name}.assign_sub(lr * grad), and create it with tf.Variable(...)."
            )


def check_gradients(grads: dict[str, tf.Tensor | None]) -> None:
    """Refuses a gradient that is None."""
    for name, grad in grads.items():
        if grad is None:
            raise PitfallError(
                f"the gradient of {name} is None: the loss was not computed from the tf.Variable {name} "
                "inside the tape. Compute forward pass and loss within `with tf.GradientTape()`, from the "
                "variable itself and not from a copy or a NumPy value of it."
            )
