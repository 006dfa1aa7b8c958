"""Schedules: the learning rate of each step, as a share of `lr`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

Schedule = Callable[..., tf.Tensor]  # (step, total, steps_per_epoch, *, <settings>) -> the share of each step
Share = Callable[[tf.Tensor], tf.Tensor]  # a schedule of which all but the step is settled


def constant(step: tf.Tensor, total: float, steps_per_epoch: int) -> tf.Tensor:
    """1 throughout.

    Args:
        step: float64 [n], the numbers of steps, from 0.
        total: how many steps there are.
        steps_per_epoch: of them.

    Returns:
        float64 [n], as all schedules do.
    """
    return tf.ones_like(step)


def staircase(
    step: tf.Tensor, total: float, steps_per_epoch: int, *, every_epochs: float, factor: float
) -> tf.Tensor:
    """factor^floor(epochs / every_epochs): one step down, every so many epochs."""
    return tf.pow(tf.cast(factor, step.dtype), tf.floor(step / (every_epochs * steps_per_epoch)))


def exponential(step: tf.Tensor, total: float, steps_per_epoch: int, *, factor: float) -> tf.Tensor:
    """factor^epochs, a little less with each step."""
    return tf.pow(tf.cast(factor, step.dtype), step / steps_per_epoch)


def cosine(step: tf.Tensor, total: float, steps_per_epoch: int, *, final: float) -> tf.Tensor:
    """From 1 to `final` along half a cosine (Loshchilov and Hutter 2017, without restarts)."""
    return final + (1 - final) * 0.5 * (1 + tf.cos(math.pi * step / total))


def one_cycle(
    step: tf.Tensor, total: float, steps_per_epoch: int, *, rising: float, start: float, final: float
) -> tf.Tensor:
    """Up from `start` to 1 and down to `final`, each along half a cosine (Smith and Topin 2019).

    Args:
        step: float64 [n].
        total: how many steps there are.
        steps_per_epoch: has no effect.
        rising: the share of the steps in which it rises, above 0 and below 1.
        start: the share of `lr` at the first step.
        final: that at the last one.
    """
    top, last = rising * total - 1, total - 1
    up = 0.5 * (1 - tf.cos(math.pi * tf.math.divide_no_nan(step, top)))  # 0 at the first step, 1 at the top
    down = 0.5 * (1 + tf.cos(math.pi * (step - top) / (last - top)))  # 1 at the top, 0 at the last
    return tf.where(step <= top, start + (1 - start) * up, final + (1 - final) * down)


def warmed_up(share: Schedule, steps: float) -> Schedule:
    """A schedule that begins after some steps, in which the rate rises evenly to 1 (Goyal et al. 2017)."""

    def warming(step: tf.Tensor, total: float, steps_per_epoch: int, **settings: float) -> tf.Tensor:
        rest = share(tf.maximum(step - steps, 0), max(total - steps, 1), steps_per_epoch, **settings)
        return tf.where(step < steps, (step + 1) / steps, rest)

    return warming if steps else share


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of each step of a run.

    Attributes:
        lr: what a schedule is a share of, above 0.
        share: from the numbers of steps, float64 [n], to the share of `lr` of each; None for a constant rate.
    """

    lr: float
    share: Share | None = None

    def rates(self, first: int, n: int) -> tf.Tensor:
        """The learning rates of n steps, float32 [n], from the step `first` of the run on."""
        if self.share is None:
            return tf.fill([n], tf.constant(self.lr, tf.float32))
        return tf.cast(self.lr * self.share(tf.range(first, first + n, dtype=tf.float64)), tf.float32)

    def at(self, global_step: int) -> float:
        """The learning rate of one step."""
        return float(self.rates(global_step, 1)[0])


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": staircase,
    "exponential": exponential,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
