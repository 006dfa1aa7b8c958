"""One step, tensor by tensor, in the order in which they come to be."""

from collections.abc import Iterator

import tensorflow as tf

from mlp_tape.training import train_step
from mlp_tape.training.state import State
from mlp_tape.training.train_step import Recipe


def walk(
    now: State, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor, recipe: Recipe, number: int = 0, seed: int = 0
) -> Iterator[tuple[str, tf.Tensor]]:
    """Computes what `train_step` does, and leaves the parameters as they are.

    Args:
        now: `tf.Variable`s; what the optimizer remembers is changed.
        x: uint8 or float32 [b, ...].
        y: int32 [b].
        lr: float32 [].
        recipe: what the step is made of.
        number: the step's in the run, from 0.
        seed: of the run.

    Yields:
        Name and tensor: the parameters, x, z1, h1, ..., logits, loss, the gradients from the last layer
        to the first, and each parameter after the update.
    """
    params = now.params
    yield from ((name, tf.convert_to_tensor(param)) for name, param in params.items())
    x = train_step.inputs(x, recipe, number, seed)  # [b,28,28] -> [b,784]
    yield "x", x
    with tf.GradientTape() as tape:
        through = list(train_step.through(params, x, recipe, number, seed))
        loss = train_step.objective(params, y, through[-1][1], recipe)
    yield from through
    yield "loss", loss
    grads = tape.gradient(loss, params)
    for name in reversed(params):
        yield f"gradient of {name}", grads[name]
    updates = train_step.changes(params, grads, lr, recipe, now.slots, number)
    for name, param in params.items():
        yield f"{name} after the update", param - updates[name]
