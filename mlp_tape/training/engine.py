"""The two engines: the same loop over `train_step`, in Python or as one compiled call."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.tensors import optimizers
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.optimizers import Grads, Slot, Updates
from mlp_tape.tensors.schedules import LearningRate
from mlp_tape.training.batches import Epoch, Span
from mlp_tape.training.state import State
from mlp_tape.training.train_step import StepConfig, train_step

# Constants that are inputs of a compiled function, and dtypes of those of the optimizer. The settings of a
# user's own rule, which may decide by them in Python, are part of the compiled function.
INPUTS = ("label_smoothing", "l2", "clip_norm", "dropout", "shift", "rotate")
INPUTS_OF_RULES = {
    **dict.fromkeys(("momentum", "weight_decay", "epsilon"), tf.float32),
    **dict.fromkeys(("rho", "beta_1", "beta_2"), tf.float64),
}


class Steps(NamedTuple):
    """Results of consecutive steps.

    Attributes:
        losses: loss of each step before its update, float32 [n].
        grads: gradients of the last step, before clipping.
        updates: updates that the last step subtracted from the parameters.
    """

    losses: NDArray[np.float32]
    grads: Grads
    updates: Updates


Engine = Callable[[State, Span, LearningRate, StepConfig], Steps]


def run_eagerly(state: State, span: Span, rate: LearningRate, config: StepConfig) -> Steps:
    """Runs one step for each batch of a span, in a Python loop.

    Args:
        state: training state, updated in place.
        span: batches to train on.
        rate: learning rate of each step.
        config: functions and constants that define a step.
    """
    some, losses = slice(span.first, span.first + span.n), []
    images, labels = tf.unstack(span.images[some]), tf.unstack(span.labels[some])  # n of [b,...], of [b]
    for x, y, lr in zip(images, labels, tf.unstack(rate.rates(state.global_step, span.n)), strict=True):
        loss, grads, updates = train_step(state, x, y, lr, config)
        losses.append(loss)
        state.global_step += 1
    return Steps(np.array([loss.numpy() for loss in losses]), grads, updates)


def run_compiled(state: State, span: Span, rate: LearningRate, config: StepConfig, most: int) -> Steps:
    """Runs one step for each batch of a span, in one XLA call.

    Args:
        state: training state, updated in place.
        span: batches to train on, at most `most`.
        rate: learning rate of each step.
        config: functions and constants that define a step; each config is compiled once.
        most: upper limit of the number of steps in every call of a run; a compile-time constant.
    """
    rates, n = rate.rates(state.global_step, most), span.n
    span = span._replace(first=tf.constant(span.first), n=tf.constant(span.n))
    step = tf.constant(state.global_step, tf.int64)
    form, values = separated(config)
    losses, grads, updates = compiled_loop(form, most)(
        state.params, state.slots, step, state.seed, span, rates, values
    )
    state.global_step += n
    return Steps(losses.numpy()[:n], grads, updates)


def _loop(
    params: Params,
    slots: Mapping[str, Slot],
    step: tf.Tensor,
    seed: tf.Tensor,
    span: Span,
    rates: tf.Tensor,
    values: Mapping[str, tf.Tensor],
    form: StepConfig,
    most: int,
) -> tuple[tf.Tensor, Grads, Updates]:
    """Runs `train_step` in a `tf.while_loop`.

    Returns:
        Losses, float32 [most], of which the first n are set; gradients and updates of the last step.
    """
    config = _joined(form, values)

    def body(i: tf.Tensor, losses: tf.TensorArray, *_: Any) -> tuple[Any, ...]:
        x, y = tf.gather(span.images, span.first + i), tf.gather(span.labels, span.first + i)  # -> [b,...]
        state = State(params, dict(slots), step + tf.cast(i, tf.int64), seed)
        loss, grads, updates = train_step(state, x, y, tf.gather(rates, i), config)
        return i + 1, losses.write(i, loss), grads, updates

    none_yet = {name: tf.zeros_like(param) for name, param in params.items()}
    start = (0, tf.TensorArray(tf.float32, most), none_yet, none_yet)
    _, losses, grads, updates = tf.while_loop(lambda i, *_: i < span.n, body, start)
    return losses.stack(), grads, updates


def separated(config: StepConfig) -> tuple[StepConfig, dict[str, tf.Tensor]]:
    """Separates a config into its form and the values of constants, which are inputs of compiled functions.

    Runs that differ in nothing but these values share what is compiled for their form, in which each is 1.
    """
    values = {name: tf.constant(value, tf.float64) for name in INPUTS if (value := getattr(config, name))}
    settings = []
    for name, value in config.optimizer.settings:
        if name in INPUTS_OF_RULES and value and config.optimizer.rule in optimizers.RULES.values():
            values[name], value = tf.constant(value, INPUTS_OF_RULES[name]), 1.0
        settings.append((name, value))
    optimizer = dataclasses.replace(config.optimizer, settings=tuple(settings))
    ones: dict[str, Any] = {name: 1.0 for name in INPUTS if name in values}
    return dataclasses.replace(config, optimizer=optimizer, **ones), values


def _joined(form: StepConfig, values: Mapping[str, tf.Tensor]) -> StepConfig:
    """Returns the config of which `separated` returns form and values."""
    settings = tuple((name, values.get(name, value)) for name, value in form.optimizer.settings)
    optimizer = dataclasses.replace(form.optimizer, settings=settings)
    inputs: dict[str, Any] = {name: values[name] for name in INPUTS if name in values}
    return dataclasses.replace(form, optimizer=optimizer, **inputs)


@functools.cache
def compiled_loop(form: StepConfig, most: int) -> Callable[..., tuple[tf.Tensor, Grads, Updates]]:
    """Returns `_loop` as one XLA call, compiled once for all runs with the same shapes and form.

    `first` and `n` remain tensors, and batches are selected with tf.gather: with tf.slice, XLA treats the
    start as a constant and recompiles for each value.
    """
    return tf.function(  # type: ignore[no-any-return]
        functools.partial(_loop, form=form, most=most), jit_compile=True, autograph=False
    )


def by_name(name: str, most: int) -> Engine:
    """Returns the engine `compiled` or `eager`; `most` is that of `run_compiled`."""
    return run_eagerly if name == "eager" else functools.partial(run_compiled, most=most)


def compile_ahead(state: State, epoch: Epoch, config: StepConfig, most: int) -> None:
    """Compiles the functions that a run will call, by calling them with no batch; the state is unchanged."""
    for images, labels in (epoch.full, epoch.rest):
        if images.shape.num_elements():
            run_compiled(state, Span(images, labels, 0, 0), LearningRate(0.0), config, most)
