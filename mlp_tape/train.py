"""The training loop: the step, run one by one or in compiled blocks."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape import batches, measures, memory, optimizer
from mlp_tape.batches import Prepared
from mlp_tape.histograms import Histogram
from mlp_tape.model import Params
from mlp_tape.optimizer import Grads, Slot, Updates
from mlp_tape.step import Recipe, check_variables, train_step

Run = Callable[..., tuple[tf.Tensor, Grads, Updates]]
Share = Callable[[tf.Tensor], tf.Tensor]

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
    """Compiles what `train` will call, by running no step of it; params and slots keep their values.

    Args:
        params: of the shapes that will be trained.
        prepared: what will be trained on.
        recipe: as in `train`.
        log_every: as in `train`.
        slots: as in `train`.
    """
    most, none, zero = _most(prepared, log_every), tf.constant(0), tf.constant(0, tf.int64)
    run, rates = compiled_steps(recipe, most), tf.zeros([most + 1])
    slots = optimizer.empty_slots(recipe.optimizer, params) if slots is None else slots
    for images, labels in (prepared.full, prepared.rest):
        if images.shape.num_elements():
            run(params, slots, images, labels, rates, none, none, none, zero, zero)


def rates(lr: float, schedule: Share | None, first: int, n: int) -> tf.Tensor:
    """The learning rate of each of n steps, float32 [n], from the first one's number in the run on."""
    if schedule is None:
        return tf.fill([n], tf.constant(lr, tf.float32))
    return tf.cast(lr * schedule(tf.range(first, first + n, dtype=tf.float64)), tf.float32)


def _most(prepared: Prepared, log_every: int) -> int:
    """The largest number of steps in a block."""
    return min(log_every, max(len(prepared.full[0]), 1))


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
    slots = optimizer.empty_slots(recipe.optimizer, params) if slots is None else slots
    most, drawn = _most(data, log_every), tf.constant(seed, tf.int64)
    lrs = rates(lr, None, first, most + 1)
    eager = functools.partial(run_steps, recipe=recipe, most=most)
    run = compiled_steps(recipe, most) if engine == "compiled" else eager

    shuffled, allowed, step = -1, 1, first
    end = epochs * steps_per_epoch if until is None else until
    while step < end:
        (epoch, start), began = divmod(step, steps_per_epoch), time.perf_counter()
        if shuffle_seed is not None and shuffled != epoch:
            order = batches.order(len(x), shuffle_seed, epoch)
            data = batches.prepare(memory.taken(x, order), y[order], batch_size)
            shuffled = epoch
        n = min(allowed, log_every - start % log_every, steps_per_epoch - start, end - step)
        if pause_every is not None:
            n = min(n, pause_every - step % pause_every)
        logged = start % log_every == 0
        nth = epoch * -(-steps_per_epoch // log_every) + start // log_every
        counted = logged and histogram_every is not None and nth % histogram_every == 0
        if schedule is not None:
            lrs = rates(lr, schedule, step, most + 1)
        call = functools.partial(run, params, slots, seed=drawn)
        losses, statistics, found = _run_block(
            call, params, data, lrs, step, start, start + n, logged, counted
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
    norms = measures.norms("params", params) if logged else {}
    found = measures.histograms("params", params) if counted else {}
    losses, statistics = [], {}
    alone = {start + 1} if logged else set()
    cuts = sorted({start, stop, min(max(start, n_full), stop)} | alone)
    for a, b in itertools.pairwise(cuts):
        some_of, first = (data.full, a) if a < n_full else (data.rest, a - n_full)
        cut = (tf.constant(number) for number in (first, b - a, a - start))
        some, grads, updates = run(*some_of, lrs, *cut, tf.constant(step, tf.int64))
        losses.append(some.numpy()[: b - a])
        if logged and a == start:
            statistics = norms | measures.norms("grads", grads) | measures.ratios(norms, updates)
            statistics["train/lr"] = float(lrs[0])
            found |= measures.histograms("grads", grads) if counted else {}
    return np.concatenate(losses), statistics, found
