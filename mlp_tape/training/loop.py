"""The training loop: over epochs, and over blocks of steps after each of which there is something to log."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlp_tape.tensors.schedules import LearningRate
from mlp_tape.training import engine, step_statistics
from mlp_tape.training.batches import Batches
from mlp_tape.training.histograms import Histogram
from mlp_tape.training.state import State
from mlp_tape.training.train_step import StepConfig, check_variables

LONGEST = 0.25  # seconds of a block, about: how long Ctrl-C has to wait


@dataclass(frozen=True)
class LoopConfig:
    """How far training goes, and where a block ends.

    Attributes:
        epochs: passes over the data.
        log_every: steps of a block, at most.
        histogram_every: of so many blocks with statistics, one has histograms, too; None for none.
        pause_every: a block ends before each multiple of this global step; None for no such limit.
        until: the global step to stop before; None for all epochs.
        engine: `compiled` or `eager`.
    """

    epochs: int
    log_every: int = 100
    histogram_every: int | None = None
    pause_every: int | None = None
    until: int | None = None
    engine: str = "compiled"

    def measures(self, epoch: int, step: int, steps_per_epoch: int) -> tuple[bool, bool]:
        """Whether a step of an epoch has statistics, and whether it has histograms."""
        if step % self.log_every:
            return False, False
        number = epoch * -(-steps_per_epoch // self.log_every) + step // self.log_every
        return True, self.histogram_every is not None and number % self.histogram_every == 0

    def most(self, batches: Batches) -> int:
        """The largest number of steps of a block."""
        return min(self.log_every, batches.steps_per_epoch)


@dataclass(frozen=True)
class Block:
    """Consecutive steps of an epoch that were run together.

    Attributes:
        epoch: from 0.
        step: the first step's number in its epoch, from 0.
        global_step: the first step's number in the run, from 0.
        losses: float32 [n], each taken before the update of its step.
        statistics: where `step` is a multiple of log_every, what there is to say of that step by metric key:
            the norms `params/w1/norm` before the update and `grads/w1/norm`; `updates/w1/ratio`, the norm of
            what was subtracted over that of w1; and the learning rate, `train/lr`.
        histograms: where they were asked for, of `params/w1` before that step and of its `grads/w1`, ...
        seconds: the duration.
        ends_epoch: whether these were the last steps of their epoch.
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
    """Trains, and yields after every block of at most `log_every` steps.

    A block ends with its epoch, the smaller last batch included, before the steps log_every,
    2 * log_every, ... of it, and after about LONGEST seconds. How steps are cut into blocks changes
    nothing of what they compute. Between blocks, `state` is that after all steps so far.

    Args:
        state: where to begin; updated in place.
        batches: of the images and labels.
        config: what defines a step.
        rate: of each step.
        loop: how far to go.
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


class _Pace:
    """How many steps take about LONGEST seconds, by the blocks so far."""

    def __init__(self) -> None:
        self.steps = 1

    def adapt(self, n: int, seconds: float) -> None:
        self.steps = max(1, min(int(n * LONGEST / seconds), 8 * n))


def _blocks(
    state: State, epoch: int, per_epoch: int, end: int, loop: LoopConfig, pace: _Pace
) -> Iterator[tuple[int, int]]:
    """Yields the steps of an epoch at which the next block starts and stops, until the epoch is over."""
    while state.global_step < min((epoch + 1) * per_epoch, end):
        start = state.global_step - epoch * per_epoch
        pause = loop.pause_every - state.global_step % loop.pause_every if loop.pause_every else per_epoch
        n = min(pace.steps, pause, loop.log_every - start % loop.log_every)
        yield start, min(start + n, per_epoch, end - epoch * per_epoch)
