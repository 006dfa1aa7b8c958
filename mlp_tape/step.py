"""One step of gradient descent: forward, loss, gradients from the tape, update in place."""

from dataclasses import dataclass

import tensorflow as tf

from mlp_tape.model import ACTIVATIONS, LOSSES, Activation, Loss, Params, forward, to_float
from mlp_tape.optimizer import OPTIMIZERS, Grads, Optimizer, Updates


@dataclass(frozen=True)
class Recipe:
    """What a step is made of.

    Attributes:
        activation: between the layers.
        loss: of labels [b] and logits [b, classes], a scalar.
        optimizer: from gradients and learning rate to updates.
        scale: what images are divided by.
    """

    activation: Activation
    loss: Loss
    optimizer: Optimizer
    scale: float


def recipe(activation: str, loss: str, optimizer: str, scale: float) -> Recipe:
    """The recipe of some names, which are those of the settings."""
    return Recipe(ACTIVATIONS[activation], LOSSES[loss], OPTIMIZERS[optimizer], scale)


class PitfallError(TypeError):
    """One of the two mistakes that the tape does not forgive."""


def train_step(
    params: Params, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor, recipe: Recipe
) -> tuple[tf.Tensor, Grads, Updates]:
    """Runs one step: forward, loss, gradients from the tape, update in place.

    Args:
        params: `tf.Variable`s, which are changed.
        x: uint8 or float32 [b, ...].
        y: int32 [b].
        lr: float32 [].
        recipe: what the step is made of.

    Returns:
        The loss before the update, the gradients, and what was subtracted.

    Raises:
        PitfallError: a parameter is no `tf.Variable`, or the loss does not depend on one.
    """
    check_variables(params)
    x = to_float(x, recipe.scale)  # [b,28,28] -> [b,784]
    with tf.GradientTape() as tape:  # records operations on tf.Variable, and on nothing else
        logits = forward(params, x, recipe.activation)  # [b,784] -> [b,10]
        loss = recipe.loss(y, logits)  # [b], [b,10] -> []
    grads = tape.gradient(loss, params)
    check_gradients(grads)
    updates = recipe.optimizer(grads, lr)
    for name, param in params.items():
        param.assign_sub(updates[name])  # in place: the name goes on standing for the same tf.Variable
    return loss, grads, updates


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
