"""One step of gradient descent: forward, loss, gradients from the tape, update in place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from mlp_tape.tensors import activations, augmentation, losses, network, optimizers
from mlp_tape.tensors.activations import Activation
from mlp_tape.tensors.constants import Constant, is_used
from mlp_tape.tensors.losses import Loss
from mlp_tape.tensors.network import Dropout, Params, forward
from mlp_tape.tensors.optimizers import Grads, Optimizer, Updates
from mlp_tape.tensors.scale import Scale
from mlp_tape.training.state import State


@dataclass(frozen=True)
class StepConfig:
    """Functions and constants that define a step.

    Attributes:
        activation: activation of the hidden layers.
        loss: function of targets [b, classes] and logits [b, classes] that returns a scalar.
        optimizer: function from gradients and learning rate to updates.
        scale: offset and divisor of the images.
        label_smoothing: smoothing factor of the targets, in [0, 1).
        l2: factor of the L2 penalty, the sum of the squares of the weights, at least 0.
        clip_norm: upper limit of the global norm of the gradients, above 0; None for no limit.
        dropout: probability with which a hidden activation is dropped, in [0, 1).
        shift: maximum shift of an image along each axis, in pixels, at least 0.
        rotate: maximum rotation of an image, in degrees, from 0 to 180.
        precision: dtype of forward and backward pass: float32, bfloat16 or float64. Parameters stay float32.
    """

    activation: Activation
    loss: Loss
    optimizer: Optimizer
    scale: Scale
    label_smoothing: Constant = 0.0
    l2: Constant = 0.0
    clip_norm: Constant | None = None
    dropout: Constant = 0.0
    shift: Constant = 0.0
    rotate: Constant = 0.0
    precision: str = "float32"


class Step(NamedTuple):
    """Results of a step.

    Attributes:
        loss: loss before the update, float32 [].
        grads: d loss / d param before clipping, keyed by parameter name.
        updates: updates subtracted from the parameters, keyed by parameter name.
    """

    loss: tf.Tensor
    grads: Grads
    updates: Updates


class PitfallError(TypeError):
    """One of the two mistakes for which the tape computes no gradient."""


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
        state: its variables are updated in place; the caller increments `global_step`.
        x: images, uint8 or float32 [b, ...].
        y: labels, int32 [b].
        lr: learning rate, float32 [].
        config: functions and constants that define the step.
        trace: filled with the tensors of the forward pass, as by `forward`.

    Returns:
        The loss, the gradients and the updates.

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
    """Augments (if configured), scales and flattens the images of a step: [b, ...] -> [b, d]."""
    if is_used(config.shift) or is_used(config.rotate):
        stream = (state.seed, state.global_step, 0)
        x = augmentation.moved(tf.cast(x, tf.float32), config.shift, config.rotate, stream)
    return network.to_float(x, config.scale, tf.as_dtype(config.precision))


def cast(params: Mapping[str, tf.Tensor], precision: str) -> Mapping[str, tf.Tensor]:
    """Casts the parameters to the precision of the forward pass; gradients flow through the cast."""
    if precision == "float32":
        return params
    return {name: tf.cast(param, precision) for name, param in params.items()}


def dropout(state: State, config: StepConfig) -> Dropout | None:
    """Returns the dropout function of a step, for `forward`; None if dropout is 0."""
    if not is_used(config.dropout):
        return None
    return lambda layer, h: activations.dropout(h, config.dropout, (state.seed, state.global_step, layer))


def objective(
    logits: tf.Tensor, y: tf.Tensor, params: Mapping[str, tf.Tensor], config: StepConfig
) -> tf.Tensor:
    """Computes the training objective, float32 []: the loss with smoothed labels, plus the L2 penalty."""
    if config.precision == "bfloat16":  # about three digits, too few to sum a loss
        logits = tf.cast(logits, tf.float32)
    targets = losses.targets(y, logits, config.label_smoothing)  # [b] -> [b,10]
    loss = tf.cast(config.loss(targets, logits), tf.float32)  # [b,10], [b,10] -> []
    return loss + tf.cast(config.l2, tf.float32) * losses.l2(params) if is_used(config.l2) else loss


def check_variables(params: Params) -> None:
    """Raises PitfallError if a parameter is not a `tf.Variable`."""
    for name, param in params.items():
        if not isinstance(param, tf.Variable):
            raise PitfallError(
                f"{name} is of type {type(param).__name__}, and the tape records tf.Variable only, so its "
                f"gradient would be None. `{name} = {name} - lr * grad` makes a tf.Tensor of a tf.Variable: "
                f"write {name}.assign_sub(lr * grad), and create it with tf.Variable(...)."
            )


def check_gradients(grads: dict[str, tf.Tensor | None]) -> None:
    """Raises PitfallError if a gradient is None."""
    for name, grad in grads.items():
        if grad is None:
            raise PitfallError(
                f"the gradient of {name} is None: the loss was not computed from the tf.Variable {name} "
                "inside the tape. Compute forward pass and loss within `with tf.GradientTape()`, from the "
                "variable itself and not from a copy or a NumPy value of it."
            )
