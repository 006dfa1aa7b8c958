"""One step, tensor by tensor, in the order in which they come to be."""

from collections.abc import Iterator

import tensorflow as tf

from mlp_tape.model import Params, layers, to_float
from mlp_tape.step import Recipe


def walk(
    params: Params, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor, recipe: Recipe
) -> Iterator[tuple[str, tf.Tensor]]:
    """Computes what `train_step` does, and leaves the parameters as they are.

    Args:
        params: `tf.Variable`s.
        x: uint8 or float32 [b, ...].
        y: int32 [b].
        lr: float32 [].
        recipe: what the step is made of.

    Yields:
        Name and tensor: the parameters, x, z1, h1, ..., logits, loss, the gradients from the last layer
        to the first, and each parameter after the update.
    """
    yield from ((name, tf.convert_to_tensor(param)) for name, param in params.items())
    x = to_float(x, recipe.scale)  # [b,28,28] -> [b,784]
    yield "x", x
    with tf.GradientTape() as tape:
        through = list(layers(params, x, recipe.activation))
        loss = recipe.loss(y, through[-1][1])
    yield from through
    yield "loss", loss
    grads = tape.gradient(loss, params)
    for name in reversed(params):
        yield f"gradient of {name}", grads[name]
    updates = recipe.optimizer(grads, lr)
    for name, param in params.items():
        yield f"{name} after the update", param - updates[name]
