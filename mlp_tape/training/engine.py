"""Many steps as one call, run one after the other or compiled."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from mlp_tape.tensors import optimizers
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.optimizers import Grads, Slot, Updates
from mlp_tape.training.batches import Prepared
from mlp_tape.training.train_step import Recipe, train_step

Run = Callable[..., tuple[tf.Tensor, Grads, Updates]]


def run_steps(
    params: Params,
    slots: Mapping[str, Slot],
    xs: tf.Tensor,
    ys: tf.Tensor,
    rates: tf.Tensor,
    first: tf.Tensor,
    n: tf.Tensor,
    done: tf.Tensor,
    step: tf.Tensor,
    seed: tf.Tensor,
    recipe: Recipe,
    most: int,
) -> tuple[tf.Tensor, Grads, Updates]:
    """Runs some steps of a block, with the batches `first` to `first + n - 1`.

    Args:
        params: `tf.Variable`s, which are changed.
        slots: what the optimizer remembers; changed likewise.
        xs: images in batches, [k, b, ...].
        ys: labels in batches, int32 [k, b].
        rates: the learning rate of each step of the block, float32 [most + 1].
        first: int32 [], the first batch's number.
        n: int32 [], how many steps, from 1 to `most`.
        done: int32 [], how many steps of the block were run before.
        step: int64 [], the number of the block's first step in the run, from 0.
        seed: int64 [], of the run.
        recipe: what a step is made of.
        most: the length of the returned losses.

    Returns:
        The losses, float32 [most], of which the first n count; gradients and updates of the last step.
    """

    def body(i: tf.Tensor, losses: tf.TensorArray, *_: Any) -> tuple[Any, ...]:
        x, y = tf.gather(xs, first + i), tf.gather(ys, first + i)  # [k,b,...] -> [b,...]
        lr, now = tf.gather(rates, done + i), step + tf.cast(done + i, tf.int64)
        loss, grads, updates = train_step(params, x, y, lr, recipe, slots, now, seed)
        return i + 1, losses.write(i, loss), grads, updates

    none_yet = {name: tf.zeros_like(param) for name, param in params.items()}
    start = (0, tf.TensorArray(tf.float32, most), none_yet, none_yet)
    _, losses, grads, updates = tf.while_loop(lambda i, *_: i < n, body, start)
    return losses.stack(), grads, updates


@functools.cache
def compiled_steps(recipe: Recipe, most: int) -> Run:
    """`run_steps` as one XLA call; compiled once for all runs of the same shapes and recipe.

    `first` and `n` stay tensors, and the batches are picked by tf.gather: with tf.slice, XLA takes the
    start for a constant and compiles anew for each.
    """
    return tf.function(  # type: ignore[no-any-return]
        functools.partial(run_steps, recipe=recipe, most=most), jit_compile=True, autograph=False
    )


def compile_ahead(
    params: Params,
    prepared: Prepared,
    recipe: Recipe,
    log_every: int,
    slots: Mapping[str, Slot] | None = None,
) -> None:
    """Compiles what `train.train` will call, by running no step of it; params and slots keep their values.

    Args:
        params: of the shapes that will be trained.
        prepared: what will be trained on.
        recipe: as in `train.train`.
        log_every: as in `train.train`.
        slots: as in `train.train`.
    """
    most, none, zero = most_in_a_block(prepared, log_every), tf.constant(0), tf.constant(0, tf.int64)
    run, rates = compiled_steps(recipe, most), tf.zeros([most + 1])
    slots = optimizers.empty_slots(recipe.optimizer, params) if slots is None else slots
    for images, labels in (prepared.full, prepared.rest):
        if images.shape.num_elements():
            run(params, slots, images, labels, rates, none, none, none, zero, zero)


def most_in_a_block(prepared: Prepared, log_every: int) -> int:
    """The largest number of steps in a block."""
    return min(log_every, max(len(prepared.full[0]), 1))
