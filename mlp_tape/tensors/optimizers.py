"""Optimizers: functions from gradients to the updates subtracted from the parameters."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tensorflow as tf

from mlp_tape.tensors.constants import Constant

Grads = dict[str, tf.Tensor]
Updates = dict[str, tf.Tensor]
Slot = dict[str, tf.Variable]  # optimizer state: one variable per parameter, of the parameter's shape
Rule = Callable[..., Updates]


@dataclass(frozen=True)
class Optimizer:
    """An update rule with its settings.

    A rule is a function `rule(params, grads, lr, t, <slots>, *, <settings>)` that returns the update to
    subtract from each parameter. Each positional argument after `t` is the slot of that name, which is
    initialized with zeros and which the rule may change in place. Each keyword-only argument is a setting.

    Attributes:
        rule: the update rule.
        settings: names and values of the rule's keyword arguments. A tensor is [], float64 if it is a decay
            rate of `moving_average`, float32 otherwise.
    """

    rule: Rule
    settings: tuple[tuple[str, float | tf.Tensor], ...] = ()

    @functools.cached_property
    def slots(self) -> list[str]:
        """The names of the slots."""
        kinds = inspect.signature(self.rule).parameters.values()
        return [each.name for each in kinds if each.kind is each.POSITIONAL_OR_KEYWORD][4:]

    def __call__(
        self,
        params: Mapping[str, tf.Variable],
        grads: Grads,
        lr: tf.Tensor,
        t: tf.Tensor,
        slots: Mapping[str, Slot],
    ) -> Updates:
        """Applies the rule.

        Args:
            params: parameters before the update.
            grads: d loss / d param, keyed by parameter name.
            lr: learning rate of this step, float32 [], at least 0.
            t: step number, float32 [], from 1.
            slots: slots keyed by name, as returned by `empty_slots`; changed in place.

        Returns:
            The update to subtract from each parameter, of the parameter's shape.
        """
        return self.rule(params, grads, lr, t, *(slots[name] for name in self.slots), **dict(self.settings))


def empty_slots(optimizer: Optimizer, params: Mapping[str, tf.Variable]) -> dict[str, Slot]:
    """Returns the slots before the first step: zeros of each parameter's shape."""
    return {
        slot: {
            name: tf.Variable(tf.zeros_like(param), name=f"{slot}/{name}") for name, param in params.items()
        }
        for slot in optimizer.slots
    }


def sgd(params: Slot, grads: Grads, lr: tf.Tensor, t: tf.Tensor) -> Updates:
    """Gradient descent: w <- w - lr * g (Robbins and Monro 1951)."""
    return {name: lr * g for name, g in grads.items()}


def momentum(
    params: Slot, grads: Grads, lr: tf.Tensor, t: tf.Tensor, velocity: Slot, *, momentum: float
) -> Updates:
    """Momentum: v <- m * v + lr * g; w <- w - v (Polyak 1964, as in Sutskever et al. 2013)."""
    for name, g in grads.items():
        velocity[name].assign(momentum * velocity[name] + lr * g)
    return {name: tf.identity(velocity[name]) for name in grads}


def nesterov(
    params: Slot, grads: Grads, lr: tf.Tensor, t: tf.Tensor, velocity: Slot, *, momentum: float
) -> Updates:
    """Nesterov momentum: v <- m * v + lr * g; w <- w - (m * v + lr * g).

    Source: Nesterov 1983, as in Sutskever et al. 2013.
    """
    for name, g in grads.items():
        velocity[name].assign(momentum * velocity[name] + lr * g)
    return {name: momentum * velocity[name] + lr * g for name, g in grads.items()}


def rmsprop(
    params: Slot,
    grads: Grads,
    lr: tf.Tensor,
    t: tf.Tensor,
    mean_square: Slot,
    *,
    rho: float,
    epsilon: float,
) -> Updates:
    """RMSprop: s <- r * s + (1 - r) * g^2; w <- w - lr * g / sqrt(s + e) (Hinton 2012)."""
    for name, g in grads.items():
        mean_square[name].assign(moving_average(mean_square[name], tf.square(g), rho))
    return {name: lr * g / tf.sqrt(mean_square[name] + epsilon) for name, g in grads.items()}


def adam(
    params: Slot,
    grads: Grads,
    lr: tf.Tensor,
    t: tf.Tensor,
    m: Slot,
    v: Slot,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> Updates:
    """Adam (Kingma and Ba 2015).

    m <- b1 * m + (1 - b1) * g;  v <- b2 * v + (1 - b2) * g^2;  w <- w - a * m / (sqrt(v) + e), where
    a = lr * sqrt(1 - b2^t) / (1 - b1^t) corrects the bias from initializing m and v with zeros. This is the
    form given at the end of section 2 of the paper.
    """
    for name, g in grads.items():
        m[name].assign(moving_average(m[name], g, beta_1))
        v[name].assign(moving_average(v[name], tf.square(g), beta_2))
    a = lr * tf.sqrt(1 - tf.pow(tf.cast(beta_2, t.dtype), t)) / (1 - tf.pow(tf.cast(beta_1, t.dtype), t))
    return {name: a * m[name] / (tf.sqrt(v[name]) + epsilon) for name in grads}


def adamw(
    params: Slot,
    grads: Grads,
    lr: tf.Tensor,
    t: tf.Tensor,
    m: Slot,
    v: Slot,
    *,
    weight_decay: float,
    **of_adam: float,
) -> Updates:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    The update of `adam`, plus lr * d * w, where w is the parameter before the step. It applies to all
    parameters, including biases.
    """
    updates = adam(params, grads, lr, t, m, v, **of_adam)
    return {name: updates[name] + lr * weight_decay * params[name] for name in grads}


def moving_average(average: tf.Tensor, value: tf.Tensor, decay: Constant) -> tf.Tensor:
    """Returns d * average + (1 - d) * value, of the dtype of `value`.

    1 - d is computed in float64, as in float32 it would lose most digits if d is close to 1.
    """
    return tf.cast(decay, value.dtype) * average + tf.cast(1 - decay, value.dtype) * value


def clipped(grads: Grads, clip_norm: Constant | None) -> Grads:
    """Scales all gradients by one factor so that their global norm is at most `clip_norm`.

    g <- g * clip_norm / max(norm, clip_norm) (Pascanu et al. 2013).

    Args:
        grads: gradients keyed by parameter name.
        clip_norm: upper limit of the global norm, above 0; None for no limit.
    """
    if clip_norm is None:
        return grads
    norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in grads.values()]))
    limit = tf.cast(clip_norm, norm.dtype)
    return {name: g * (limit / tf.maximum(norm, limit)) for name, g in grads.items()}


RULES: dict[str, Rule] = {each.__name__: each for each in (sgd, momentum, nesterov, rmsprop, adam, adamw)}
