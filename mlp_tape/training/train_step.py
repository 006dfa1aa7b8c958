"""One step of gradient descent: forward, loss, gradients from the tape, update in place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import tensorflow as tf

from mlp_tape.system import user_functions
from mlp_tape.tensors import activations, augmentation, losses, network, optimizers
from mlp_tape.tensors.activations import ACTIVATIONS, Activation
from mlp_tape.tensors.losses import LOSSES, Loss
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.optimizers import RULES, Grads, Optimizer, Slot, Updates


@dataclass(frozen=True)
class Recipe:
    """What a step is made of.

    Attributes:
        activation: between the layers.
        loss: of targets [b, classes] and logits [b, classes], a scalar.
        optimizer: from gradients and learning rate to updates.
        scale: what images are divided by.
        label_smoothing: of the targets, from 0 to below 1.
        l2: how much the squares of the weights add to the loss, from 0.
        clip_norm: the most that the gradients' norm may be, taken together; None for any.
        dropout: the share of each hidden layer that is dropped, from 0 to below 1.
        shift: the most that images are moved, in pixels.
        rotate: the most that they are turned, in degrees.
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


def recipe(
    activation: str,
    loss: str,
    rule: str,
    scale: float,
    rule_settings: Mapping[str, float] | None = None,
    **others: float | str | None,
) -> Recipe:
    """The recipe of some names, which are those of the settings; the others are as in `Recipe`.

    Raises:
        ConfigError: there is no such function.
    """
    made = Optimizer(user_functions.find(rule, RULES), tuple(sorted((rule_settings or {}).items())))
    return Recipe(ACTIVATIONS[activation], user_functions.find(loss, LOSSES), made, scale, **others)  # type: ignore[arg-type]


class PitfallError(TypeError):
    """One of the two mistakes that the tape does not forgive."""


def train_step(
    params: Params,
    x: tf.Tensor,
    y: tf.Tensor,
    lr: tf.Tensor,
    recipe: Recipe,
    slots: Mapping[str, Slot] | None = None,
    step: tf.Tensor | int = 0,
    seed: tf.Tensor | int = 0,
) -> tuple[tf.Tensor, Grads, Updates]:
    """Runs one step: forward, loss, gradients from the tape, update in place.

    Args:
        params: `tf.Variable`s, which are changed.
        x: uint8 or float32 [b, ...].
        y: int32 [b].
        lr: float32 [].
        recipe: what the step is made of.
        slots: what the optimizer remembers, which is changed; needed where it remembers something.
        step: int64 [], the step's number in the run, from 0.
        seed: int64 [], of the run: with `step`, it decides what is random in the step.

    Returns:
        The loss before the update, the gradients, and what was subtracted.

    Raises:
        PitfallError: a parameter is no `tf.Variable`, or the loss does not depend on one.
    """
    check_variables(params)
    x = inputs(x, recipe, step, seed)  # [b,28,28] -> [b,784]
    with tf.GradientTape() as tape:  # records operations on tf.Variable, and on nothing else
        logits = dict(through(params, x, recipe, step, seed))["logits"]  # [b,784] -> [b,10]
        loss = objective(params, y, logits, recipe)  # [b], [b,10] -> []
    grads = tape.gradient(loss, params)
    check_gradients(grads)
    updates = changes(params, grads, lr, recipe, slots or {}, step)
    for name, param in params.items():
        param.assign_sub(updates[name])  # in place: the name goes on standing for the same tf.Variable
    return loss, grads, updates


def changes(
    params: Params,
    grads: Grads,
    lr: tf.Tensor,
    recipe: Recipe,
    slots: Mapping[str, Slot],
    step: tf.Tensor | int,
) -> Updates:
    """What a step subtracts from each parameter: the optimizer's answer to gradients that may be clipped."""
    if recipe.clip_norm is not None:
        grads = optimizers.clipped(grads, recipe.clip_norm)
    return recipe.optimizer(params, grads, lr, tf.cast(step, tf.float32) + 1, slots)


def inputs(x: tf.Tensor, recipe: Recipe, step: tf.Tensor | int = 0, seed: tf.Tensor | int = 0) -> tf.Tensor:
    """The images of a step as rows of floats, moved where the recipe says so: [b, ...] -> [b, d]."""
    if recipe.shift or recipe.rotate:
        x = augmentation.moved(tf.cast(x, tf.float32), recipe.shift, recipe.rotate, (seed, step, 0))
    return network.to_float(x, recipe.scale, tf.as_dtype(recipe.precision))


def through(
    params: Mapping[str, tf.Tensor],
    x: tf.Tensor,
    recipe: Recipe,
    step: tf.Tensor | int = 0,
    seed: tf.Tensor | int = 0,
) -> Iterator[tuple[str, tf.Tensor]]:
    """The layers of a training step, with dropout where the recipe says so; as `model.layers`."""

    def drop(layer: int, h: tf.Tensor) -> tf.Tensor:
        return activations.dropout(h, recipe.dropout, (seed, step, layer))

    if recipe.precision != "float32":
        params = {name: tf.cast(param, recipe.precision) for name, param in params.items()}
    return network.layers(params, x, recipe.activation, drop if recipe.dropout else None)


def objective(params: Mapping[str, tf.Tensor], y: tf.Tensor, logits: tf.Tensor, recipe: Recipe) -> tf.Tensor:
    """What a step makes smaller, float32 []: the loss, with smoothed labels and the weights' squares."""
    if recipe.precision == "bfloat16":  # three digits, too few to add up a loss
        logits = tf.cast(logits, tf.float32)
    loss = recipe.loss(losses.targets(y, logits, recipe.label_smoothing), logits)  # [b], [b,10] -> []
    loss = tf.cast(loss, tf.float32)
    return loss + recipe.l2 * losses.l2(params) if recipe.l2 else loss


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
