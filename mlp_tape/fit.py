"""Training as it is planned: blocks are journalled and printed, each epoch's end evaluated and kept."""

import datetime
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlp_tape import checkpoint, config, divergence, snapshots, stop
from mlp_tape.checkpoint import Checkpoint
from mlp_tape.console import Console
from mlp_tape.evaluate import Evaluation
from mlp_tape.journal import Journal, Row
from mlp_tape.model import Params
from mlp_tape.plan import Plan
from mlp_tape.result import Result
from mlp_tape.train import Block


def fit(
    plan: Plan,
    directory: Path,
    console: Console,
    journal: Journal,
    start: Checkpoint | None = None,
    with_histograms: bool = False,
) -> Result:
    """Trains a network from its first weights on, or from a checkpoint.

    Args:
        plan: what to train, and on what.
        directory: of the run; checkpoints, and a step that went astray, are kept there.
        console: is shown the logged losses and each epoch's test results.
        journal: is given every metric row.
        start: what to go on from.
        with_histograms: whether those of parameters and gradients are kept, now and then, for the pictures.

    Raises:
        DivergenceError: the loss is no longer finite.
        Stopped: a signal came; all that was done is in the last checkpoint.
    """
    params, tested = plan.params_at(start), None
    first_weights = (plan.params_at(None) if start else params)["w1"].numpy()
    done, every = start.step if start else 0, plan.settings.checkpoint.every_steps
    with stop.held(), console.progress(done, plan.steps) as show:
        for block in plan.train(params, done, with_histograms=with_histograms):
            journal.append(_rows(block, time.time()))
            if not np.isfinite(block.losses).all():
                raise divergence.explained(plan, start, block, directory)
            if block.histograms:
                snapshots.save(directory, block.global_step, block.histograms)
            done += len(block.losses)
            loss = f"loss {block.losses[0]:.6f}"
            show(done, f"epoch {block.epoch + 1}/{plan.settings.epochs}  {loss}")
            if block.statistics:
                console.line(f"epoch {block.epoch}  step {block.step}  {loss}")
            if block.ends_epoch:
                tested = plan.evaluate(params)
                journal.append(_results(tested, done - 1))
                told = f"test loss {tested.loss:.6f}  accuracy {tested.accuracy:.4f}"
                console.line(f"epoch {block.epoch}  {told}")
            if block.ends_epoch or stop.reason() or (every and done % every == 0):
                start = _keep(directory, plan, params, done, journal) or start
            stop.raise_if_asked()
        tested = tested or plan.evaluate(params)  # all was trained before; the report is missing
        stop.raise_if_asked()
    weights = {name: param.numpy() for name, param in params.items()}
    return Result(done, weights, tested.loss, tested.accuracy, tested.scores, first_weights)


def _rows(block: Block, ended: float) -> Iterator[Row]:
    """The block's finite values as metric rows; each loss at the time its step ended."""
    began, each = ended - block.seconds, block.seconds / len(block.losses)
    for i, loss in enumerate(block.losses.tolist()):
        if math.isfinite(loss):
            yield Row("train/loss", block.global_step + i, loss, int(1000 * (began + (i + 1) * each)))
    for key, value in block.statistics.items():
        if math.isfinite(value):
            yield Row(key, block.global_step, value, int(1000 * (began + each)))


def _results(tested: Evaluation, global_step: int) -> Iterator[Row]:
    """An evaluation, made after the given global step, as metric rows."""
    now = int(1000 * time.time())
    values = {"test/loss": tested.loss, "test/accuracy": tested.accuracy}
    for key, value in (values | {f"units/{name}/dead": share for name, share in tested.dead.items()}).items():
        if math.isfinite(value):
            yield Row(key, global_step, value, now)


def _keep(directory: Path, plan: Plan, params: Params, done: int, journal: Journal) -> Checkpoint | None:
    """Writes a checkpoint after so many steps; not one from which nothing but divergence comes."""
    arrays = {name: param.numpy() for name, param in params.items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        return None
    rows = journal.size
    journal.bring_to_disk()  # first: a checkpoint counts on the rows before it
    about = {
        "epochs": done / (plan.steps / plan.settings.epochs),
        "journal": rows,
        "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "data_sha256": plan.dataset.sha256,
        "settings": {
            key: value for key, value in config.flat(plan.settings) if not key.startswith(config.FREE)
        },
    }
    checkpoint.save(directory / checkpoint.FOLDER, done, arrays, about)
    return Checkpoint(done, arrays, about)
