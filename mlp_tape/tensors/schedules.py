"""Learning rate schedules, as factors by which `lr` is multiplied at each step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

Schedule = Callable[..., tf.Tensor]  # (step, total, steps_per_epoch, *, <settings>) -> factor of each step
Share = Callable[[tf.Tensor], tf.Tensor]  # a schedule with every argument but the step bound


def constant(step: tf.Tensor, total: float, steps_per_epoch: int) -> tf.Tensor:
    """Constant schedule: 1 at every step.

    Args:
        step: step numbers, float64 [n], from 0.
        total: number of steps of the run.
        steps_per_epoch: number of steps per epoch.

    Returns:
        The factor of each step, float64 [n]. All schedules take these three arguments and return this.
    """
    return tf.ones_like(step)


def staircase(
    step: tf.Tensor, total: float, steps_per_epoch: int, *, every_epochs: float, factor: float
) -> tf.Tensor:
    """Step decay: factor^floor(epochs / every_epochs), where epochs = step / steps_per_epoch."""
    return tf.pow(tf.cast(factor, step.dtype), tf.floor(step / (every_epochs * steps_per_epoch)))


def exponential(step: tf.Tensor, total: float, steps_per_epoch: int, *, factor: float) -> tf.Tensor:
    """Exponential decay: factor^epochs, where epochs = step / steps_per_epoch is fractional."""
    return tf.pow(tf.cast(factor, step.dtype), step / steps_per_epoch)


def cosine(step: tf.Tensor, total: float, steps_per_epoch: int, *, final: float) -> tf.Tensor:
    """Cosine decay from 1 to `final` (Loshchilov and Hutter 2017, without restarts)."""
    return final + (1 - final) * 0.5 * (1 + tf.cos(math.pi * step / total))


def one_cycle(
    step: tf.Tensor, total: float, steps_per_epoch: int, *, rising: float, start: float, final: float
) -> tf.Tensor:
    """One-cycle policy: rises from `start` to 1, then falls to `final` (Smith and Topin 2019).

    Both phases follow half a cosine.

    Args:
        step: step numbers, float64 [n], from 0.
        total: number of steps of the run.
        steps_per_epoch: has no effect.
        rising: fraction of the steps in the rising phase, in (0, 1).
        start: factor at the first step.
        final: factor at the last step.

    Returns:
        The factor of each step, float64 [n].
    """
    top, last = rising * total - 1, total - 1
    up = 0.5 * (1 - tf.cos(math.pi * tf.math.divide_no_nan(step, top)))  # 0 at the first step, 1 at the top
    down = 0.5 * (1 + tf.cos(math.pi * (step - top) / (last - top)))  # 1 at the top, 0 at the last
    return tf.where(step <= top, start + (1 - start) * up, final + (1 - final) * down)


def warmed_up(share: Schedule, steps: float) -> Schedule:
    """Prepends a linear warmup of `steps` steps to a schedule (Goyal et al. 2017).

    During warmup the factor is (step + 1) / steps; the schedule then covers the remaining steps.
    """

    def warming(step: tf.Tensor, total: float, steps_per_epoch: int, **settings: float) -> tf.Tensor:
        rest = share(tf.maximum(step - steps, 0), max(total - steps, 1), steps_per_epoch, **settings)
        return tf.where(step < steps, (step + 1) / steps, rest)

    return warming if steps else share


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of each step of a run.

    Attributes:
        lr: base learning rate, above 0.
        share: function from step numbers, float64 [n], to the factor of each; None for a constant rate.
    """

    lr: float
    share: Share | None = None

    def rates(self, first: int, n: int) -> tf.Tensor:
        """Returns the learning rates of n steps, beginning with step `first` of the run, as float32 [n]."""
        if self.share is None:
            return tf.constant(np.full(n, self.lr, np.float32))
        return tf.cast(self.lr * self.share(tf.range(first, first + n, dtype=tf.float64)), tf.float32)

    def at(self, global_step: int) -> float:
        """Returns the learning rate of one step of the run, counted from 0."""
        return float(self.rates(global_step, 1).numpy()[0])


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": staircase,
    "exponential": exponential,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
