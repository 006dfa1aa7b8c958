"""The training loop: which steps are run together, and what is known of them."""

import functools
import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.tensors import optimizers, schedules
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.optimizers import Slot
from mlp_tape.tensors.schedules import Share
from mlp_tape.training import batches, step_statistics
from mlp_tape.training.batches import Prepared
from mlp_tape.training.engine import Run, compiled_steps, most_in_a_block, run_steps
from mlp_tape.training.histograms import Histogram
from mlp_tape.training.train_step import Recipe, check_variables

LONGEST = 0.25  # seconds of a block, about: how long Ctrl-C has to wait


@dataclass(frozen=True)
class Block:
    """Some steps that were run together.

    Attributes:
        epoch: from 0.
        step: the first step's number in its epoch, from 0.
        global_step: the first step's number in the run, from 0.
        losses: float32 [n], each taken before the update of its step.
        statistics: where `step` is a multiple of log_every, what there is to say of that step by metric key:
            the norms `params/w1/norm` before the update and `grads/w1/norm`; `updates/w1/ratio`, the norm of
            what was subtracted over that of w1; and the learning rate, `train/lr`.
        histograms: where they were asked for, of `params/w1` before that step and of its `grads/w1`, ...
        seconds: how long it took.
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
    params: Params,
    x: NDArray[Any],
    y: NDArray[Any],
    recipe: Recipe,
    *,
    lr: float,
    batch_size: int,
    epochs: int,
    slots: Mapping[str, Slot] | None = None,
    schedule: Share | None = None,
    seed: int = 0,
    log_every: int = 100,
    histogram_every: int | None = None,
    engine: str = "compiled",
    shuffle_seed: int | None = None,
    first: int = 0,
    until: int | None = None,
    pause_every: int | None = None,
    prepared: Prepared | None = None,
) -> Iterator[Block]:
    """Trains, and yields after every block of at most `log_every` steps.

    A block ends with its epoch, the smaller last batch included, before the steps log_every,
    2 * log_every, ... of it, and after about LONGEST seconds. How steps are cut into blocks changes
    nothing of what they compute. Between blocks, `params` hold the state after all steps so far.

    Args:
        params: as from `init_params`, or after `first` steps; changed in place.
        x: uint8 or float32 [n, ...].
        y: int32 [n].
        recipe: what a step is made of.
        lr: the learning rate that a schedule is a share of, above 0.
        batch_size: images a step.
        epochs: how often all images are gone through.
        slots: what the optimizer remembers after `first` steps; changed in place. None for its beginning.
        schedule: from the numbers of steps, float64 [n], to the share of `lr` that each is taken with; None
            for all of it.
        seed: decides what is random within a step.
        log_every: steps in a block, at the most.
        histogram_every: of how many steps with statistics one has histograms, too; None for no step.
        engine: `compiled` or `eager`.
        shuffle_seed: None for the given order; else the order is a pure function of it and the epoch.
        first: the global step to begin with.
        until: the global step to stop before; None for all epochs.
        pause_every: a block also ends before each multiple of this global step.
        prepared: what `prepare` makes of x, y and batch_size, where that was done before.
    """
    check_variables(params)
    steps_per_epoch = -(-len(x) // batch_size)
    data = prepared or batches.prepare(x, y, batch_size)
    slots = optimizers.empty_slots(recipe.optimizer, params) if slots is None else slots
    most = most_in_a_block(data, log_every)
    eager = functools.partial(run_steps, recipe=recipe, most=most)
    many = compiled_steps(recipe, most) if engine == "compiled" else eager
    run = functools.partial(many, params, slots, seed=tf.constant(seed, tf.int64))
    lrs = schedules.rates(lr, None, first, most + 1)

    shuffled, allowed, step = -1, 1, first
    end = epochs * steps_per_epoch if until is None else until
    while step < end:
        (epoch, start), began = divmod(step, steps_per_epoch), time.perf_counter()
        if shuffle_seed is not None and shuffled != epoch:
            data, shuffled = batches.shuffled(x, y, batch_size, shuffle_seed, epoch), epoch
        pause = end if pause_every is None else pause_every - step % pause_every
        n = min(allowed, log_every - start % log_every, steps_per_epoch - start, end - step, pause)
        logged = start % log_every == 0
        nth = epoch * -(-steps_per_epoch // log_every) + start // log_every
        counted = logged and histogram_every is not None and nth % histogram_every == 0
        if schedule is not None:
            lrs = schedules.rates(lr, schedule, step, most + 1)
        losses, statistics, found = _run_block(
            run, params, data, lrs, step, start, start + n, logged, counted
        )
        seconds = time.perf_counter() - began
        yield Block(
            epoch=epoch,
            step=start,
            global_step=step,
            losses=losses,
            statistics=statistics,
            histograms=found,
            seconds=seconds,
            ends_epoch=start + n == steps_per_epoch,
        )
        step += n
        allowed = max(1, min(int(n * LONGEST / seconds), 8 * n))


def _run_block(
    run: Run,
    params: Params,
    data: Prepared,
    lrs: tf.Tensor,
    step: int,
    start: int,
    stop: int,
    logged: bool,
    counted: bool,
) -> tuple[NDArray[np.float32], dict[str, float], dict[str, Histogram]]:
    """Runs steps of an epoch, from `start` to before `stop`; also returns norms and histograms, if asked for.

    There are up to three calls: the first step, for its gradients; the others of full size; the smaller one.
    """
    n_full = len(data.full[0])
    norms = step_statistics.norms("params", params) if logged else {}
    found = step_statistics.histograms("params", params) if counted else {}
    losses, statistics = [], {}
    alone = {start + 1} if logged else set()
    cuts = sorted({start, stop, min(max(start, n_full), stop)} | alone)
    for a, b in itertools.pairwise(cuts):
        some_of, first = (data.full, a) if a < n_full else (data.rest, a - n_full)
        cut = (tf.constant(number) for number in (first, b - a, a - start))
        some, grads, updates = run(*some_of, lrs, *cut, tf.constant(step, tf.int64))
        losses.append(some.numpy()[: b - a])
        if logged and a == start:
            statistics = (
                norms | step_statistics.norms("grads", grads) | step_statistics.ratios(norms, updates)
            )
            statistics["train/lr"] = float(lrs[0])
            found |= step_statistics.histograms("grads", grads) if counted else {}
    return np.concatenate(losses), statistics, found
