"""A training that its caller iterates over, block by block; nothing is tracked or written."""

from collections.abc import Iterator
from dataclasses import dataclass

from mlp_tape.config.settings import Settings
from mlp_tape.data.datasets import Dataset
from mlp_tape.runs.trainer import Trainer
from mlp_tape.tensors.network import Params
from mlp_tape.training.evaluation import Evaluation
from mlp_tape.training.loop import Block
from mlp_tape.training.state import State


@dataclass(frozen=True, eq=False)
class Blocks:
    """An iterable of the blocks of a training. Each iteration continues where the last one stopped.

    Attributes:
        trainer: settings and data.
        state: parameters, optimizer slots and step number. Between two blocks, its variables may be changed.
    """

    trainer: Trainer
    state: State

    def __iter__(self) -> Iterator[Block]:
        """Trains block after block of at most `log_every` steps, to the last epoch."""
        return self.trainer.train(self.state)

    @property
    def settings(self) -> Settings:
        """The settings."""
        return self.trainer.settings

    @property
    def dataset(self) -> Dataset:
        """The data set, as arrays."""
        return self.trainer.dataset

    @property
    def params(self) -> Params:
        """The parameters w1, b1, w2, b2, ..., each a `tf.Variable`."""
        return self.state.params

    def test(self) -> Evaluation:
        """Evaluates the present parameters on the test images."""
        return self.trainer.evaluate(self.params)

    def validate(self) -> Evaluation:
        """Evaluates the present parameters on the validation images, of which there must be some."""
        return self.trainer.validate(self.params)


def blocks(settings: Settings, dataset: Dataset) -> Blocks:
    """Returns a training that begins with the initial weights."""
    trainer = Trainer(settings, dataset)
    return Blocks(trainer, trainer.state_at(None))
