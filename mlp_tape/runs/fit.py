"""Training of a run, with journal, console output, evaluation after each epoch, and checkpoints."""

import datetime
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from mlp_tape.config.metrics import MONITOR
from mlp_tape.config.settings import FREE, flatten
from mlp_tape.data.contents import Array
from mlp_tape.reports.result import Pruned, Result
from mlp_tape.runs import divergence
from mlp_tape.runs.comparison import Comparison
from mlp_tape.runs.early_stopping import EarlyStopping
from mlp_tape.runs.pruning import Pruning
from mlp_tape.runs.trainer import Trainer
from mlp_tape.storage import checkpoint, checksums, histogram_files, run_paths
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.storage.journal import Journal, Row
from mlp_tape.storage.metric_keys import OF_CLASSES, TRAIN_LOSS, best_key
from mlp_tape.system import signals, timeline
from mlp_tape.system.console import Console
from mlp_tape.system.formatting import count
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
    pruning: Pruning | None = None,
    comparison: Comparison | None = None,
) -> Result | Pruned:
    """Trains a network from its initial weights or from a checkpoint, and evaluates it on the test images.

    Args:
        trainer: trainer of the run.
        directory: directory of the run, for checkpoints, histograms, and the step of a divergence.
        console: receives the logged losses and the results of each evaluation.
        journal: receives every metric row.
        start: checkpoint to resume from; None for the initial weights.
        with_histograms: whether to save histograms of parameters and gradients for the plots.
        pruning: what may end the training early, without evaluation on the test images; None for no end.
        comparison: compares what is recorded with an earlier run; None for no comparison.

    Raises:
        DivergenceError: the loss is not finite.
        Stopped: a signal was received; the last checkpoint contains all completed steps.
    """
    fitting = _Fitting(trainer, directory, console, journal, start, pruning, comparison)
    with signals.deferred(), console.progress(fitting.done, trainer.steps) as show:
        fitting.train(with_histograms, show)
        if fitting.is_pruned:
            epochs = fitting.done // trainer.steps_per_epoch
            return Pruned(epochs, fitting.done, fitting.best.results)
        tested = fitting.test()
        signals.raise_if_stopped()
    return Result(
        steps=fitting.done,
        weights=fitting.weights,
        loss=tested.loss,
        accuracy=tested.accuracy,
        scores=tested.scores,
        by_class=tested.by_class,
        first_weights=fitting.first_weights,
        validation=fitting.best.results,
        best_epochs=fitting.best.steps // trainer.steps_per_epoch,
    )


class _Fitting:
    """The state of a training in progress, with its journal, console and checkpoints."""

    def __init__(
        self,
        trainer: Trainer,
        directory: Path,
        console: Console,
        journal: Journal,
        start: Checkpoint | None,
        pruning: Pruning | None,
        comparison: Comparison | None,
    ) -> None:
        self._trainer, self._directory, self._console, self._journal = trainer, directory, console, journal
        self._last_checkpoint, self._state = start, trainer.state_at(start)
        self._tested: Evaluation | None = None
        self._pruning, self.is_pruned = pruning, False
        self._comparison = comparison
        self.first_weights = (trainer.state_at(None) if start else self._state).params["w1"].numpy()
        stopping = trainer.settings.stopping
        self.best = EarlyStopping(stopping.monitor or MONITOR, stopping.patience)
        self.best.restore(start)

    @property
    def done(self) -> int:
        """The number of steps completed."""
        return int(self._state.global_step)

    @property
    def weights(self) -> dict[str, Array]:
        """Copies of the current parameters."""
        return State(self._state.params).arrays()

    def train(self, with_histograms: bool, show: Callable[[int, str], None]) -> None:
        """Trains to the last step, or until early stopping or pruning ends the training.

        A checkpoint at the end of an epoch is only written if the job was not pruned there, so that a job
        that resumes from it need not ask again.
        """
        trainer, every = self._trainer, self._trainer.settings.checkpoint.every_steps
        blocks = trainer.train(self._state, with_histograms=with_histograms)
        timeline.begin("training")
        for block in () if self.best.is_over else blocks:
            self._record_block(block)
            show(self.done, f"epoch {block.epoch + 1}/{trainer.settings.epochs}  loss {block.losses[0]:.6f}")
            if block.ends_epoch:
                timeline.end("training")
                self._end_epoch(block.epoch)
            if self.is_pruned:
                break
            if block.ends_epoch or signals.stop_reason() or (every and self.done % every == 0):
                self._save_checkpoint()
            signals.raise_if_stopped()
            if self.best.is_over:
                break
            timeline.begin("training")
        timeline.end("training")

    @timeline.phase("evaluation")
    def test(self) -> Evaluation:
        """Evaluates on the test images, with the best weights if there are validation images."""
        best = self.best
        if best.arrays:
            self._state.set(best.arrays)
            self._console.line(
                f"the best weights are those after {best.steps:,} of {count(self.done, 'step')}"
            )
            self._tested = self._trainer.evaluate(self._state.params)
            self._record_evaluation("with these weights", "test", self._tested)
        return self._tested or self._trainer.evaluate(self._state.params)  # resumed after the last step

    def _record_block(self, block: Block) -> None:
        """Writes the metrics of a block to the journal, checks that its losses are finite, and prints it."""
        self._append(_rows(block, time.time()))
        if not np.isfinite(block.losses).all():
            raise divergence.explained(self._trainer, self._last_checkpoint, block, self._directory)
        if block.histograms:
            histogram_files.save(self._directory, block.global_step, block.histograms)
        if block.statistics:
            self._console.line(f"epoch {block.epoch}  step {block.step}  loss {block.losses[0]:.6f}")

    @timeline.phase("evaluation")
    def _end_epoch(self, epoch: int) -> None:
        """Evaluates on the validation images if there are any, else on the test images.

        The results on the test images are never used for selection.
        """
        weights = self.weights
        self._append_checksums(weights)
        if self._trainer.validates:
            found = self._trainer.validate(self._state.params)
            self._record_evaluation(f"epoch {epoch}", "validation", found)
            self.best.update(found, self.done, weights)
            self._append(_best(self.best, found, self.done - 1))
        else:
            found = self._tested = self._trainer.evaluate(self._state.params)
            self._record_evaluation(f"epoch {epoch}", "test", found)
        if self._pruning is not None:
            is_over = self.done == self._trainer.steps or self.best.is_over
            self.is_pruned = self._pruning.ends_job(epoch, found.value) and not is_over

    def _record_evaluation(self, when: str, split: str, found: Evaluation) -> None:
        """Writes an evaluation of the current step to the journal, and prints it."""
        self._append(_results(split, found, self.done - 1))
        loss, accuracy = f"{split} loss {found.loss:.6f}", f"{split} accuracy {found.accuracy:.4f}"
        self._console.line(f"{when}  {loss}  {accuracy}")

    def _append(self, rows: Iterable[Row]) -> None:
        """Writes metric rows to the journal, and compares them."""
        rows = list(rows)
        self._journal.append(rows)
        for line in self._comparison.rows(rows) if self._comparison else ():
            self._console.line(line)

    def _append_checksums(self, weights: dict[str, Array]) -> None:
        """Records the SHA-256 of the parameters at the end of an epoch, and compares them."""
        found = checksums.of_arrays(weights)
        checksums.append(self._directory, self.done, found)
        for line in self._comparison.weights(self.done, found) if self._comparison else ():
            self._console.line(line)

    @timeline.phase("checkpoint")
    def _save_checkpoint(self) -> None:
        """Writes a checkpoint, unless a parameter is not finite."""
        if not all(np.isfinite(array).all() for array in self.weights.values()):
            return
        trainer, (chosen, selection) = self._trainer, self.best.to_checkpoint()
        arrays, rows = self._state.arrays() | chosen, self._journal.size
        self._journal.flush()  # first: a checkpoint is valid only with the rows before it
        about = {
            "epochs": self.done / trainer.steps_per_epoch,
            "journal": rows,
            "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "data_sha256": trainer.dataset.sha256,
            "selection": selection,
            "settings": {key: value for key, value in flatten(trainer.settings) if not key.startswith(FREE)},
        }
        checkpoint.save(self._directory / run_paths.CHECKPOINTS, self.done, arrays, about)
        self._last_checkpoint = Checkpoint(self.done, arrays, about)


def _rows(block: Block, ended: float) -> Iterator[Row]:
    """Yields the finite values of a block as metric rows; timestamps are interpolated within the block."""
    began, each = ended - block.seconds, block.seconds / len(block.losses)
    for i, loss in enumerate(block.losses.tolist()):
        if math.isfinite(loss):
            yield Row(TRAIN_LOSS, block.global_step + i, loss, int(1000 * (began + (i + 1) * each)))
    for key, value in block.statistics.items():
        if math.isfinite(value):
            yield Row(key, block.global_step, value, int(1000 * (began + each)))


def _results(split: str, found: Evaluation, global_step: int) -> Iterator[Row]:
    """Yields the finite values of an evaluation after the given global step as metric rows."""
    now = int(1000 * time.time())
    values = {f"{split}/loss": found.loss, f"{split}/accuracy": found.accuracy}
    if found.by_class.is_imbalanced:
        values |= {f"{split}/{name}": getattr(found.by_class, name) for name in OF_CLASSES}
    if split == "test":
        values |= {f"units/{name}/dead": share for name, share in found.dead.items()}
    for key, value in values.items():
        if math.isfinite(value):
            yield Row(key, global_step, value, now)


def _best(best: EarlyStopping, found: Evaluation, global_step: int) -> Iterator[Row]:
    """Yields the results of the best weights so far, of the metrics that the last evaluation has."""
    recorded = {row.key: row for row in _results("validation", found, global_step)}
    for key, value in best.results.items():
        if key in recorded and math.isfinite(value):
            yield recorded[key]._replace(key=best_key(key), value=value)
