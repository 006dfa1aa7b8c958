"""Settings and data as what the training loop takes."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlp_tape.config.settings import Settings, non_null
from mlp_tape.data.datasets import Dataset
from mlp_tape.data.sources import Array
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.system import compilation_cache
from mlp_tape.tensors import network, schedules
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.schedules import Share
from mlp_tape.training import batches, evaluation, histograms, loop, state, train_step
from mlp_tape.training.batches import Prepared
from mlp_tape.training.engine import compile_ahead, compiled_steps
from mlp_tape.training.evaluation import Evaluation
from mlp_tape.training.loop import Block
from mlp_tape.training.state import State
from mlp_tape.training.train_step import Recipe


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
        return train_step.recipe(**self.ingredients)

    @property
    def ingredients(self) -> dict[str, Any]:
        """The recipe, by the names that a file can hold."""
        settings = self.settings
        rule = non_null(settings.optimizer)
        return {
            "activation": settings.model.activation,
            "loss": settings.loss,
            "rule": rule.pop("name"),
            "rule_settings": rule,
            "scale": self.dataset.scale,
            "label_smoothing": settings.label_smoothing,
            "l2": settings.l2,
            "clip_norm": settings.clip_norm,
            "dropout": settings.model.dropout,
            "shift": settings.augment.shift,
            "rotate": settings.augment.rotate,
            "precision": settings.precision,
        }

    @functools.cached_property
    def schedule(self) -> Share | None:
        """From the numbers of steps to shares of the learning rate; None where that stays."""
        rates, steps_per_epoch = non_null(self.settings.schedule), self.steps // self.settings.epochs
        name, warmup = rates.pop("name"), rates.pop("warmup_epochs") * steps_per_epoch
        if name == "constant" and not warmup:
            return None
        share = schedules.warmed_up(schedules.SCHEDULES[name], warmup)
        return functools.partial(share, total=self.steps, steps_per_epoch=steps_per_epoch, **rates)

    @property
    def steps(self) -> int:
        """The number of steps in all epochs."""
        return self.settings.epochs * -(-len(self.dataset.x_train) // self.settings.batch_size)

    @property
    def shuffle_seed(self) -> int | None:
        """What decides the order of the images; None for that of the file."""
        return self.settings.seed if self.settings.shuffle else None

    def lr(self, global_step: int) -> float:
        """The learning rate of a step."""
        return float(schedules.rates(self.settings.lr, self.schedule, global_step, 1)[0])

    def state_at(self, start: Checkpoint | None) -> State:
        """Parameters and slots of a checkpoint, or the first ones."""
        network, seed = self.settings.model, self.settings.seed
        sizes = tuple(self.layer_sizes)
        if start is None:
            arrays = _first_arrays(sizes, network.init_stddev, seed, network.init)
        else:
            arrays = start.arrays
        return state.of(arrays, sizes, self.recipe.optimizer)

    def train(
        self, now: State, first: int, until: int | None = None, with_histograms: bool = False
    ) -> Iterator[Block]:
        """Trains from one global step to before another, or to the end."""
        settings, steps_per_epoch = self.settings, self.steps // self.settings.epochs
        every = histograms.every(self.steps, steps_per_epoch, settings.log_every)
        return loop.train(
            now.params,
            self.dataset.x_train,
            self.dataset.y_train,
            self.recipe,
            lr=settings.lr,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            slots=now.slots,
            schedule=self.schedule,
            seed=settings.seed,
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
        shapes = [(array.shape, array.dtype) for array in self.dataset.images]
        settings = self.settings
        what = (*shapes, *self.layer_sizes, self.recipe, settings.batch_size, settings.log_every)
        if settings.engine != "compiled" or what in _compiled:
            return
        _compiled.add(what)
        try:
            self._compile()
        except Exception:  # what an earlier process kept may be damaged
            if not compilation_cache.empty():
                raise
            compiled_steps.cache_clear()
            evaluation.compiled_score.cache_clear()
            self._compile()

    def _compile(self) -> None:
        now, prepared = self.state_at(None), _prepared(self.dataset, self.settings.batch_size)
        compile_ahead(now.params, prepared, self.recipe, self.settings.log_every, now.slots)
        self.evaluate(now.params)
        if self.validates:
            self.validate(now.params)

    @property
    def validates(self) -> bool:
        """Whether some images are kept from training, to choose by."""
        return len(self.dataset.y_validation) > 0

    def evaluate(self, params: Params) -> Evaluation:
        """Evaluates on the test images."""
        return self._evaluation(params, self.dataset.x_test, self.dataset.y_test)

    def validate(self, params: Params) -> Evaluation:
        """Evaluates on the images that were kept from training."""
        return self._evaluation(params, self.dataset.x_validation, self.dataset.y_validation)

    def _evaluation(self, params: Params, x: Array, y: Array) -> Evaluation:
        return evaluation.evaluate(params, x, y, self.recipe, self.settings.engine)

    def batch(self, global_step: int) -> tuple[Array, Array]:
        """The images and labels of a step."""
        data, size = self.dataset, self.settings.batch_size
        return batches.batch(data.x_train, data.y_train, size, global_step, self.shuffle_seed)


_compiled: set[tuple[Any, ...]] = set()


@functools.lru_cache(maxsize=1)  # the jobs of most sweeps have them in common
def _first_arrays(layer_sizes: tuple[int, ...], stddev: float, seed: int, init: str) -> dict[str, Array]:
    params = network.init_params(layer_sizes, stddev, seed, init)
    return {name: param.numpy() for name, param in params.items()}


@functools.lru_cache(maxsize=1)  # the jobs of a sweep have it in common
def _prepared(dataset: Dataset, batch_size: int) -> Prepared:
    return batches.prepare(dataset.x_train, dataset.y_train, batch_size)
