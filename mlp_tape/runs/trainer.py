"""The trainer, which connects settings and data with the training loop."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlp_tape.config.settings import Settings, flatten, non_null
from mlp_tape.data.contents import Array
from mlp_tape.data.datasets import Dataset
from mlp_tape.errors import ConfigError, UserFunctionError
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.system import compilation_cache, user_functions
from mlp_tape.tensors import network, schedules
from mlp_tape.tensors.activations import ACTIVATIONS
from mlp_tape.tensors.losses import LOSSES
from mlp_tape.tensors.network import Params
from mlp_tape.tensors.optimizers import RULES, Optimizer
from mlp_tape.tensors.scale import Scale
from mlp_tape.tensors.schedules import SCHEDULES, LearningRate
from mlp_tape.training import engine, evaluation, histograms, loop, state
from mlp_tape.training.batches import Batches
from mlp_tape.training.engine import Steps
from mlp_tape.training.evaluation import Evaluation
from mlp_tape.training.loop import Block, LoopConfig
from mlp_tape.training.state import State
from mlp_tape.training.train_step import StepConfig


def step_config(
    activation: str,
    loss: str,
    rule: str,
    scale: float | list[float],
    offset: float | list[float] = 0.0,
    rule_settings: Mapping[str, float] | None = None,
    **others: Any,
) -> StepConfig:
    """Creates the config of a step from the names of its functions.

    Args:
        activation: a key of ACTIVATIONS.
        loss: a key of LOSSES, or `module.function`.
        rule: update rule of the optimizer: a key of RULES, or `module.function`.
        scale: divisor of the images, as in `Scale.as_json`.
        offset: offset of the images.
        rule_settings: keyword arguments of the rule.
        others: other attributes of `StepConfig`.

    Raises:
        ConfigError: a function cannot be imported.
    """
    optimizer = Optimizer(user_functions.find(rule, RULES), tuple(sorted((rule_settings or {}).items())))
    functions = ACTIVATIONS[activation], user_functions.find(loss, LOSSES), optimizer
    return StepConfig(*functions, Scale.of_json(scale, offset), **others)


@dataclass(frozen=True)
class Trainer:
    """Trains and evaluates a network according to the settings.

    Attributes:
        settings: validated settings.
        dataset: data set to train and evaluate on.
    """

    settings: Settings
    dataset: Dataset

    @functools.cached_property
    def step(self) -> StepConfig:
        """The functions and constants that define a step."""
        return step_config(**self.step_names)

    @property
    def step_names(self) -> dict[str, Any]:
        """The arguments of `step_config`, JSON-serializable: the settings that `StepConfig` has by name."""
        values = {key.rpartition(".")[2]: value for key, value in flatten(self.settings)}
        rule = non_null(self.settings.optimizer)
        of_step = {each.name: values[each.name] for each in fields(StepConfig) if each.name in values}
        of_rule = {"rule": rule.pop("name"), "rule_settings": rule}
        return of_step | of_rule | self.dataset.scale.as_json()  # the setting `dataset.scale` is the method

    @functools.cached_property
    def rate(self) -> LearningRate:
        """The learning rate of each step."""
        keywords, lr = non_null(self.settings.schedule), self.settings.lr
        name, warmup = keywords.pop("name"), keywords.pop("warmup_epochs") * self.steps_per_epoch
        if name == "constant" and not warmup:
            return LearningRate(lr)
        share = schedules.warmed_up(SCHEDULES[name], warmup)
        return LearningRate(
            lr, functools.partial(share, total=self.steps, steps_per_epoch=self.steps_per_epoch, **keywords)
        )

    @property
    def layer_sizes(self) -> list[int]:
        """The width of each layer, from the input to the number of classes."""
        return self.dataset.layer_sizes(self.settings.model.hidden_sizes)

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch, including the smaller last batch."""
        return self.dataset.steps_per_epoch(self.settings.batch_size)

    @property
    def steps(self) -> int:
        """The number of steps in all epochs."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def batches(self) -> Batches:
        """The training images and labels in batches."""
        seed = self.settings.seed if self.settings.shuffle else None
        return _batches(self.dataset, self.settings.batch_size, seed)

    @property
    def validates(self) -> bool:
        """Whether some images are held out from training for model selection."""
        return len(self.dataset.y_validation) > 0

    def state_at(self, start: Checkpoint | None) -> State:
        """Returns the state of a checkpoint, or the initial state if `start` is None."""
        model, sizes, seed = self.settings.model, self.layer_sizes, self.settings.seed
        if start is None:
            arrays, step = _initial_arrays(tuple(sizes), model.init_stddev, seed, model.init), 0
        else:
            arrays, step = start.arrays, start.step
        return state.restored(arrays, sizes, self.step.optimizer, step, seed)

    def train(self, now: State, until: int | None = None, with_histograms: bool = False) -> Iterator[Block]:
        """Trains from a state up to, but not including, the global step `until`; None for all epochs.

        Args:
            now: initial state, updated in place.
            until: global step before which to stop.
            with_histograms: whether some blocks have histograms.

        Yields:
            The results of each block.

        Raises:
            UserFunctionError: a loss or an optimizer of the user failed.
        """
        every = histograms.every(self.steps, self.steps_per_epoch, self.settings.log_every)
        limits = dataclasses.replace(
            self._limits, histogram_every=every if with_histograms else None, until=until
        )
        with user_functions.blamed(self.settings.optimizer.name, self.settings.loss):
            yield from loop.train(now, self.batches, self.step, self.rate, limits)

    def one_step(self, now: State) -> Steps:
        """Runs the next step, updates the state in place, and returns gradients and updates, too."""
        with user_functions.blamed(self.settings.optimizer.name, self.settings.loss):
            return loop.one_step(now, self.batches, self.step, self.rate, self._limits)

    @property
    def _limits(self) -> LoopConfig:
        settings = self.settings
        return LoopConfig(
            epochs=settings.epochs,
            log_every=settings.log_every,
            pause_every=settings.checkpoint.every_steps,
            engine=settings.engine,
        )

    def compile(self) -> None:
        """Compiles the functions that `train` and `evaluate` call, once in a process."""
        shapes = [(array.shape, array.dtype) for array in self.dataset.images]
        settings = self.settings
        form, _ = engine.separated(self.step)
        what = (*shapes, *self.layer_sizes, form, settings.batch_size, settings.log_every)
        if settings.engine != "compiled" or what in _compiled:
            return
        _compiled.add(what)
        try:
            self._compile()
        except UserFunctionError as error:  # nothing was started
            raise ConfigError(error.what, error.hint) from error
        except Exception:  # the compilation cache may be damaged
            if not compilation_cache.clear():
                raise
            engine.compiled_loop.cache_clear()
            evaluation.compiled_score.cache_clear()
            self._compile()

    def _compile(self) -> None:
        now, batches = self.state_at(None), self.batches
        most = self._limits.most(batches)
        with user_functions.blamed(self.settings.optimizer.name, self.settings.loss):
            engine.compile_ahead(now, batches.shapes, self.step, most)
            self.evaluate(now.params)
            if self.validates:
                self.validate(now.params)

    def evaluate(self, params: Params) -> Evaluation:
        """Evaluates on the test images."""
        return self._evaluation(params, self.dataset.x_test, self.dataset.y_test)

    def validate(self, params: Params) -> Evaluation:
        """Evaluates on the validation images."""
        return self._evaluation(params, self.dataset.x_validation, self.dataset.y_validation)

    def _evaluation(self, params: Params, x: Array, y: Array) -> Evaluation:
        return evaluation.evaluate(params, x, y, self.step, self.settings.engine)


_compiled: set[tuple[Any, ...]] = set()


@functools.lru_cache(maxsize=1)  # the jobs of most sweeps share them
def _initial_arrays(layer_sizes: tuple[int, ...], stddev: float, seed: int, init: str) -> dict[str, Array]:
    params = network.init_params(layer_sizes, stddev, seed, init)
    return {name: param.numpy() for name, param in params.items()}


@functools.lru_cache(maxsize=1)  # the jobs of most sweeps share them
def _batches(dataset: Dataset, batch_size: int, shuffle_seed: int | None) -> Batches:
    return Batches(dataset.x_train, dataset.y_train, batch_size, shuffle_seed)
