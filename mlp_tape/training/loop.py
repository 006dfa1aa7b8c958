"""The training loop: over epochs, and within each over blocks of steps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlp_tape.tensors.schedules import LearningRate
from mlp_tape.training import engine, step_statistics
from mlp_tape.training.batches import Batches
from mlp_tape.training.engine import Steps
from mlp_tape.training.histograms import Histogram
from mlp_tape.training.state import State
from mlp_tape.training.train_step import StepConfig, check_variables

LONGEST = 0.25  # approximate maximum duration of a block in seconds, and so the delay of Ctrl-C


@dataclass(frozen=True)
class LoopConfig:
    """How long to train, and where blocks end.

    Attributes:
        epochs: number of passes over the data.
        log_every: maximum number of steps in a block, and the interval between steps with statistics.
        histogram_every: interval, in blocks with statistics, between blocks with histograms; None for none.
        pause_every: blocks also end before global steps that are multiples of this; None for no such limit.
        until: global step before which to stop; None to train all epochs.
        engine: `compiled` or `eager`.
    """

    epochs: int
    log_every: int = 100
    histogram_every: int | None = None
    pause_every: int | None = None
    until: int | None = None
    engine: str = "compiled"

    def measures(self, epoch: int, step: int, steps_per_epoch: int) -> tuple[bool, bool]:
        """Returns whether a step of an epoch has statistics, and whether it has histograms."""
        if step % self.log_every:
            return False, False
        number = epoch * -(-steps_per_epoch // self.log_every) + step // self.log_every
        return True, self.histogram_every is not None and number % self.histogram_every == 0

    def most(self, batches: Batches) -> int:
        """Returns the maximum number of steps in a block."""
        return min(self.log_every, batches.steps_per_epoch)


@dataclass(frozen=True)
class Block:
    """Results of consecutive steps of an epoch.

    Attributes:
        epoch: number of the epoch, from 0.
        step: number of the first step in its epoch, from 0.
        global_step: number of the first step in the run, from 0.
        losses: loss of each step before its update, float32 [n].
        statistics: statistics of the first step by metric key, if `step` is a multiple of log_every, else
            empty: the norms `params/w1/norm` before the update and `grads/w1/norm`, ...; `updates/w1/ratio`,
            ..., the norm of the update divided by that of the parameter; and `train/lr`, the learning rate.
        histograms: histograms of `params/w1`, ... before the first step and of its `grads/w1`, ...; empty
            if the block has none.
        seconds: duration.
        ends_epoch: whether the block contains the last step of its epoch.
    """

    epoch: int
    step: int
    global_step: int
    losses: NDArray[np.float32]
    statistics: dict[str, float]
    histograms: dict[str, Histogram]
    seconds: float
    ends_epoch: bool


def train(
    state: State, batches: Batches, config: StepConfig, rate: LearningRate, loop: LoopConfig
) -> Iterator[Block]:
    """Trains the network, and yields the results of each block of at most `log_every` steps.

    A block ends with its epoch (including the smaller last batch), before the steps log_every,
    2 * log_every, ... of the epoch, and after about LONGEST seconds. How steps are divided into blocks does
    not affect what they compute. When a block is yielded, `state` reflects all steps so far.

    Args:
        state: initial state, updated in place.
        batches: batches of the training images and labels.
        config: functions and constants that define a step.
        rate: learning rate of each step.
        loop: how long to train, and where blocks end.

    Yields:
        The results of each block.

    Raises:
        PitfallError: a parameter is not a `tf.Variable`, or the loss does not depend on it.
    """
    check_variables(state.params)
    run = engine.by_name(loop.engine, loop.most(batches))
    per_epoch = batches.steps_per_epoch
    end = loop.epochs * per_epoch if loop.until is None else loop.until
    pace = _Pace()
    for epoch in range(state.global_step // per_epoch, -(-end // per_epoch)):
        data = batches.epoch(epoch)
        for start, stop in _blocks(state, epoch, per_epoch, end, loop, pace):
            began, first = time.perf_counter(), state.global_step
            losses: list[NDArray[np.float32]] = []
            logged, counted = loop.measures(epoch, start, per_epoch)
            statistics = step_statistics.norms("params", state.params) if logged else {}
            histograms = step_statistics.histograms("params", state.params) if counted else {}
            for span in data.spans(start, stop, first_alone=logged):
                steps = run(state, span, rate, config)
                if logged and not losses:
                    statistics |= step_statistics.norms("grads", steps.grads)
                    statistics |= step_statistics.ratios(statistics, steps.updates)
                    statistics["train/lr"] = rate.at(first)
                    histograms |= step_statistics.histograms("grads", steps.grads) if counted else {}
                losses.append(steps.losses)
            seconds = time.perf_counter() - began
            done = stop == per_epoch
            yield Block(epoch, start, first, np.concatenate(losses), statistics, histograms, seconds, done)
            pace.adapt(stop - start, seconds)


def one_step(
    state: State, batches: Batches, config: StepConfig, rate: LearningRate, loop: LoopConfig
) -> Steps:
    """Runs the next step as `train` does, bit for bit, and returns its gradients and updates, too.

    Args:
        state: state before the step, updated in place.
        batches: as for `train`, like the other arguments.
        config: functions and constants that define a step.
        rate: learning rate of each step.
        loop: how the run is divided into blocks.
    """
    epoch, step = divmod(state.global_step, batches.steps_per_epoch)
    (span,) = batches.epoch(epoch).spans(step, step + 1, first_alone=True)
    return engine.by_name(loop.engine, loop.most(batches))(state, span, rate, config)


class _Pace:
    """Estimates from previous blocks how many steps take about LONGEST seconds."""

    def __init__(self) -> None:
        self.steps = 1

    def adapt(self, n: int, seconds: float) -> None:
        self.steps = max(1, min(int(n * LONGEST / seconds), 8 * n))


def _blocks(
    state: State, epoch: int, per_epoch: int, end: int, loop: LoopConfig, pace: _Pace
) -> Iterator[tuple[int, int]]:
    """Yields the range [start, stop) of steps of each block of an epoch."""
    while state.global_step < min((epoch + 1) * per_epoch, end):
        start = state.global_step - epoch * per_epoch
        pause = loop.pause_every - state.global_step % loop.pause_every if loop.pause_every else per_epoch
        n = min(pace.steps, pause, loop.log_every - start % loop.log_every)
        yield start, min(start + n, per_epoch, end - epoch * per_epoch)
