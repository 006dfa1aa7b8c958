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
from mlp_tape.plan import Plan
from mlp_tape.result import Result
from mlp_tape.selection import Selection
from mlp_tape.state import State
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
    now, tested = plan.state_at(start), None
    first_weights = (plan.state_at(None) if start else now).params["w1"].numpy()
    done, every = start.step if start else 0, plan.settings.checkpoint.every_steps
    stopping = plan.settings.stopping
    best = Selection(stopping.monitor, stopping.patience)
    best.go_on(start)
    with stop.held(), console.progress(done, plan.steps) as show:
        for block in () if best.is_over else plan.train(now, done, with_histograms=with_histograms):
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
            if block.ends_epoch and plan.validates:
                found = plan.validate(now.params)
                _tell(f"epoch {block.epoch}  validation", "validation", found, done, console, journal)
                best.consider(found, done, State(now.params, {}).arrays())
            elif block.ends_epoch:
                tested = plan.evaluate(now.params)
                _tell(f"epoch {block.epoch}  test", "test", tested, done, console, journal)
            if block.ends_epoch or stop.reason() or (every and done % every == 0):
                start = _keep(directory, plan, now, best, done, journal) or start
            stop.raise_if_asked()
            if best.is_over:
                break
        if best.arrays:
            now.set(best.arrays)
            steps = (
                f"of {best.steps:,} steps, {done - best.steps:,} before the last" if best.steps < done else ""
            )
            console.line(
                f"the best weights by validation {stopping.monitor} are those {steps or 'of the end'}"
            )
            tested = plan.evaluate(now.params)
            _tell("test of these", "test", tested, done, console, journal)
        tested = tested or plan.evaluate(now.params)  # all was trained before; the report is missing
        stop.raise_if_asked()
    weights = State(now.params, {}).arrays()
    chosen_by = best.accuracy if best.arrays else tested.accuracy
    return Result(done, weights, tested.loss, tested.accuracy, tested.scores, first_weights, chosen_by)


def _tell(what: str, split: str, found: Evaluation, done: int, console: Console, journal: Journal) -> None:
    """Journals and prints an evaluation, made after so many steps."""
    journal.append(_results(split, found, done - 1))
    console.line(f"{what} loss {found.loss:.6f}  accuracy {found.accuracy:.4f}")


def _rows(block: Block, ended: float) -> Iterator[Row]:
    """The block's finite values as metric rows; each loss at the time its step ended."""
    began, each = ended - block.seconds, block.seconds / len(block.losses)
    for i, loss in enumerate(block.losses.tolist()):
        if math.isfinite(loss):
            yield Row("train/loss", block.global_step + i, loss, int(1000 * (began + (i + 1) * each)))
    for key, value in block.statistics.items():
        if math.isfinite(value):
            yield Row(key, block.global_step, value, int(1000 * (began + each)))


def _results(split: str, found: Evaluation, global_step: int) -> Iterator[Row]:
    """An evaluation, made after the given global step, as metric rows."""
    now = int(1000 * time.time())
    values = {f"{split}/loss": found.loss, f"{split}/accuracy": found.accuracy}
    if split == "test":
        values |= {f"units/{name}/dead": share for name, share in found.dead.items()}
    for key, value in values.items():
        if math.isfinite(value):
            yield Row(key, global_step, value, now)


def _keep(
    directory: Path, plan: Plan, now: State, best: Selection, done: int, journal: Journal
) -> Checkpoint | None:
    """Writes a checkpoint after so many steps; not one from which nothing but divergence comes."""
    if not all(np.isfinite(param.numpy()).all() for param in now.params.values()):
        return None
    chosen, selection = best.kept()
    arrays = now.arrays() | chosen
    rows = journal.size
    journal.bring_to_disk()  # first: a checkpoint counts on the rows before it
    about = {
        "epochs": done / (plan.steps / plan.settings.epochs),
        "journal": rows,
        "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "data_sha256": plan.dataset.sha256,
        "selection": selection,
        "settings": {
            key: value for key, value in config.flat(plan.settings) if not key.startswith(config.FREE)
        },
    }
    checkpoint.save(directory / checkpoint.FOLDER, done, arrays, about)
    return Checkpoint(done, arrays, about)
