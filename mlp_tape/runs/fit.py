"""Training as it is planned: blocks are journalled and printed, each epoch's end evaluated and kept."""

import datetime
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mlp_tape.config.settings import FREE, flatten
from mlp_tape.data.sources import Array
from mlp_tape.reports.result import Result
from mlp_tape.runs import divergence
from mlp_tape.runs.early_stopping import EarlyStopping
from mlp_tape.runs.trainer import Trainer
from mlp_tape.storage import checkpoint, histogram_files
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.system import signals
from mlp_tape.system.console import Console
from mlp_tape.training.evaluation import Evaluation
from mlp_tape.training.loop import Block
from mlp_tape.training.state import State


def fit(
    trainer: Trainer,
    directory: Path,
    console: Console,
    journal: Journal,
    start: Checkpoint | None = None,
    with_histograms: bool = False,
) -> Result:
    """Trains a network from its first weights on, or from a checkpoint.

    Args:
        trainer: of the run.
        directory: of the run; checkpoints, and a step that went astray, are kept there.
        console: is shown the logged losses and each epoch's test results.
        journal: is given every metric row.
        start: what to go on from.
        with_histograms: whether those of parameters and gradients are kept, now and then, for the pictures.

    Raises:
        DivergenceError: the loss is no longer finite.
        Stopped: a signal came; all that was done is in the last checkpoint.
    """
    fitting = _Fitting(trainer, directory, console, journal, start)
    with signals.held(), console.progress(fitting.done, trainer.steps) as show:
        fitting.train(with_histograms, show)
        tested = fitting.test()
        signals.raise_if_asked()
    best = fitting.best
    return Result(
        steps=fitting.done,
        weights=fitting.weights,
        loss=tested.loss,
        accuracy=tested.accuracy,
        scores=tested.scores,
        first_weights=fitting.first_weights,
        chosen_by=best.accuracy if best.arrays else tested.accuracy,
    )


class _Fitting:
    """Training while it lasts: how far it is, what it has come to, and what is kept of it."""

    def __init__(
        self, trainer: Trainer, directory: Path, console: Console, journal: Journal, start: Checkpoint | None
    ) -> None:
        self._trainer, self._directory, self._console, self._journal = trainer, directory, console, journal
        self._kept, self._state = start, trainer.state_at(start)
        self._tested: Evaluation | None = None
        self.first_weights = (trainer.state_at(None) if start else self._state).params["w1"].numpy()
        self.best = EarlyStopping(trainer.settings.stopping.monitor, trainer.settings.stopping.patience)
        self.best.go_on(start)

    @property
    def done(self) -> int:
        """The number of steps taken."""
        return int(self._state.global_step)

    @property
    def weights(self) -> dict[str, Array]:
        """The parameters as they are now."""
        return State(self._state.params).arrays()

    def train(self, with_histograms: bool, show: Callable[[int, str], None]) -> None:
        """Trains to the last step, or until no better weights are waited for."""
        trainer, every = self._trainer, self._trainer.settings.checkpoint.every_steps
        blocks = trainer.train(self._state, with_histograms=with_histograms)
        for block in () if self.best.is_over else blocks:
            self._note(block)
            show(self.done, f"epoch {block.epoch + 1}/{trainer.settings.epochs}  loss {block.losses[0]:.6f}")
            if block.ends_epoch:
                self._end_epoch(block.epoch)
            if block.ends_epoch or signals.reason() or (every and self.done % every == 0):
                self._keep()
            signals.raise_if_asked()
            if self.best.is_over:
                break

    def test(self) -> Evaluation:
        """Evaluates on the test images: with the best weights, where there are images to choose by."""
        best = self.best
        if best.arrays:
            self._state.set(best.arrays)
            self._console.line(f"the best weights are those of {best.steps:,} steps of {self.done:,}")
            self._tested = self._trainer.evaluate(self._state.params)
            self._tell("test of these", "test", self._tested)
        return self._tested or self._trainer.evaluate(self._state.params)  # all was trained before

    def _note(self, block: Block) -> None:
        """Journals, checks and prints a block."""
        self._journal.append(_rows(block, time.time()))
        if not np.isfinite(block.losses).all():
            raise divergence.explained(self._trainer, self._kept, block, self._directory)
        if block.histograms:
            histogram_files.save(self._directory, block.global_step, block.histograms)
        if block.statistics:
            self._console.line(f"epoch {block.epoch}  step {block.step}  loss {block.losses[0]:.6f}")

    def _end_epoch(self, epoch: int) -> None:
        """Evaluates: on the images to choose by, else on the test images, by which nothing is chosen."""
        if self._trainer.validates:
            found = self._trainer.validate(self._state.params)
            self._tell(f"epoch {epoch}  validation", "validation", found)
            self.best.consider(found, self.done, self.weights)
        else:
            self._tested = self._trainer.evaluate(self._state.params)
            self._tell(f"epoch {epoch}  test", "test", self._tested)

    def _tell(self, what: str, split: str, found: Evaluation) -> None:
        """Journals and prints an evaluation, made after all steps so far."""
        self._journal.append(_results(split, found, self.done - 1))
        self._console.line(f"{what} loss {found.loss:.6f}  accuracy {found.accuracy:.4f}")

    def _keep(self) -> None:
        """Writes a checkpoint; not one from which nothing but divergence comes."""
        if not all(np.isfinite(array).all() for array in self.weights.values()):
            return
        trainer, (chosen, selection) = self._trainer, self.best.kept()
        arrays, rows = self._state.arrays() | chosen, self._journal.size
        self._journal.bring_to_disk()  # first: a checkpoint counts on the rows before it
        about = {
            "epochs": self.done / trainer.steps_per_epoch,
            "journal": rows,
            "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "data_sha256": trainer.dataset.sha256,
            "selection": selection,
            "settings": {key: value for key, value in flatten(trainer.settings) if not key.startswith(FREE)},
        }
        checkpoint.save(self._directory / checkpoint.FOLDER, self.done, arrays, about)
        self._kept = Checkpoint(self.done, arrays, about)


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
