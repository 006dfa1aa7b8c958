"""Settings and data as what the training loop takes."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlp_tape import batches, evaluate, histograms, model, step, train, xla_cache
from mlp_tape.batches import Prepared
from mlp_tape.checkpoint import Checkpoint
from mlp_tape.config import Settings
from mlp_tape.data import Dataset
from mlp_tape.evaluate import Evaluation
from mlp_tape.model import Params
from mlp_tape.sources import Array
from mlp_tape.step import Recipe
from mlp_tape.train import Block


@dataclass(frozen=True)
class Plan:
    """What is to be trained, and on what.

    Attributes:
        settings: checked.
        dataset: what to learn.
        layer_sizes: from the input's width to the number of classes.
    """

    settings: Settings
    dataset: Dataset
    layer_sizes: list[int]

    @functools.cached_property
    def recipe(self) -> Recipe:
        """What a step is made of."""
        return step.recipe(**self.ingredients)

    @property
    def ingredients(self) -> dict[str, Any]:
        """The recipe, by the names that a file can hold."""
        return {
            "activation": self.settings.model.activation,
            "loss": self.settings.loss,
            "optimizer": self.settings.optimizer.name,
            "scale": self.dataset.scale,
        }

    @property
    def steps(self) -> int:
        """The number of steps in all epochs."""
        return self.settings.epochs * -(-len(self.dataset.x_train) // self.settings.batch_size)

    @property
    def shuffle_seed(self) -> int | None:
        """What decides the order of the images; None for that of the file."""
        return self.settings.seed if self.settings.shuffle else None

    def params_at(self, start: Checkpoint | None) -> Params:
        """The parameters of a checkpoint, or the first ones."""
        stddev, seed = self.settings.model.init_stddev, self.settings.seed
        return model.as_params(
            start.arrays if start else _first_arrays(tuple(self.layer_sizes), stddev, seed)
        )

    def train(
        self, params: Params, first: int, until: int | None = None, with_histograms: bool = False
    ) -> Iterator[Block]:
        """Trains from one global step to before another, or to the end."""
        settings, steps_per_epoch = self.settings, self.steps // self.settings.epochs
        every = histograms.every(self.steps, steps_per_epoch, settings.log_every)
        return train.train(
            params,
            self.dataset.x_train,
            self.dataset.y_train,
            self.recipe,
            lr=settings.lr,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            log_every=settings.log_every,
            histogram_every=every if with_histograms else None,
            engine=settings.engine,
            shuffle_seed=self.shuffle_seed,
            first=first,
            until=until,
            pause_every=settings.checkpoint.every_steps,
            prepared=_prepared(self.dataset, settings.batch_size),
        )

    def compile(self) -> None:
        """Compiles what `train` and `evaluate` will call, where this process has not done that before."""
        shapes = [(array.shape, array.dtype) for array in (self.dataset.x_train, self.dataset.x_test)]
        settings = self.settings
        what = (*shapes, *self.layer_sizes, self.recipe, settings.batch_size, settings.log_every)
        if settings.engine != "compiled" or what in _compiled:
            return
        _compiled.add(what)
        try:
            self._compile()
        except Exception:  # what an earlier process kept may be damaged
            if not xla_cache.empty():
                raise
            train.compiled_steps.cache_clear()
            evaluate.compiled_score.cache_clear()
            self._compile()

    def _compile(self) -> None:
        params, prepared = self.params_at(None), _prepared(self.dataset, self.settings.batch_size)
        train.compile_ahead(params, prepared, self.recipe, self.settings.log_every)
        self.evaluate(params)

    def evaluate(self, params: Params) -> Evaluation:
        """Evaluates on the test images."""
        data = self.dataset
        return evaluate.evaluate(params, data.x_test, data.y_test, self.recipe, self.settings.engine)

    def batch(self, global_step: int) -> tuple[Array, Array]:
        """The images and labels of a step."""
        data, size = self.dataset, self.settings.batch_size
        return batches.batch(data.x_train, data.y_train, size, global_step, self.shuffle_seed)


_compiled: set[tuple[Any, ...]] = set()


@functools.lru_cache(maxsize=1)  # the jobs of most sweeps have them in common
def _first_arrays(layer_sizes: tuple[int, ...], stddev: float, seed: int) -> dict[str, Array]:
    params = model.init_params(layer_sizes, stddev, seed)
    return {name: param.numpy() for name, param in params.items()}


@functools.lru_cache(maxsize=1)  # the jobs of a sweep have it in common
def _prepared(dataset: Dataset, batch_size: int) -> Prepared:
    return batches.prepare(dataset.x_train, dataset.y_train, batch_size)
