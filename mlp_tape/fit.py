"""Training as the settings say it: each block is journalled and printed, each epoch's end evaluated."""

import math
import time
from collections.abc import Iterator

import numpy as np

from mlp_tape import evaluate, model, optimizer, step, stop, train
from mlp_tape.config import Settings
from mlp_tape.console import Console
from mlp_tape.data import Dataset
from mlp_tape.errors import DivergenceError
from mlp_tape.journal import Journal, Row
from mlp_tape.result import Result
from mlp_tape.train import Block


def fit(
    settings: Settings, dataset: Dataset, layer_sizes: list[int], console: Console, journal: Journal
) -> Result:
    """Trains a network from its first weights on.

    Args:
        settings: checked.
        dataset: what to learn.
        layer_sizes: from the input's width to the number of classes.
        console: is shown each block's first loss and each epoch's test results.
        journal: is given every metric row.

    Raises:
        DivergenceError: the loss is no longer finite.
    """
    recipe = step.Recipe(
        activation=model.ACTIVATIONS[settings.model.activation],
        loss=model.LOSSES[settings.loss],
        optimizer=optimizer.OPTIMIZERS[settings.optimizer.name],
        scale=dataset.scale,
    )
    params = model.init_params(layer_sizes, settings.model.init_stddev, settings.seed)
    blocks = train.train(
        params,
        dataset.x_train,
        dataset.y_train,
        recipe,
        lr=settings.lr,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        log_every=settings.log_every,
        engine=settings.engine,
        shuffle_seed=settings.seed if settings.shuffle else None,
    )
    done = Result()
    steps_per_epoch = -(-len(dataset.x_train) // settings.batch_size)
    with console.progress(settings.epochs * steps_per_epoch) as advance:
        for block in blocks:
            journal.append(_rows(block, time.time()))
            stop.raise_if_asked()
            _refuse_divergence(block)
            done.losses.frombytes(block.losses.tobytes())
            loss = f"loss {block.losses[0]:.6f}"
            console.line(f"epoch {block.epoch}  step {block.step}  {loss}")
            advance(len(block.losses), f"epoch {block.epoch + 1}/{settings.epochs}  {loss}")
            if block.ends_epoch:
                tested = evaluate.evaluate(params, dataset.x_test, dataset.y_test, recipe)
                _keep(done, tested, block.global_step + len(block.losses) - 1)
                journal.append(done.rows)
                console.line(
                    f"epoch {block.epoch}  test loss {tested.loss:.6f}  accuracy {tested.accuracy:.4f}"
                )
    done.weights = {name: param.numpy() for name, param in params.items()}
    return done


def _keep(done: Result, tested: evaluate.Evaluation, global_step: int) -> None:
    """Adds an epoch's evaluation, made after the given global step."""
    now = int(1000 * time.time())
    done.rows = [
        Row("test/loss", global_step, tested.loss, now),
        Row("test/accuracy", global_step, tested.accuracy, now),
    ]
    done.test_losses.append(tested.loss)
    done.test_accuracies.append(tested.accuracy)
    done.predictions = tested.predictions


def _rows(block: Block, ended: float) -> Iterator[Row]:
    """The block's finite values as metric rows; each loss at the time its step ended."""
    began, each = ended - block.seconds, block.seconds / len(block.losses)
    for i, loss in enumerate(block.losses.tolist()):
        if math.isfinite(loss):
            yield Row("train/loss", block.global_step + i, loss, int(1000 * (began + (i + 1) * each)))
    for key, value in block.statistics.items():
        if math.isfinite(value):
            yield Row(key, block.global_step, value, int(1000 * (began + each)))


def _refuse_divergence(block: Block) -> None:
    broken = np.flatnonzero(~np.isfinite(block.losses))
    if broken.size:
        i = int(broken[0])
        raise DivergenceError(
            f"the loss is {block.losses[i]} at step {block.global_step + i} (epoch {block.epoch}, "
            f"step {block.step + i})",
            "type a smaller lr=... or model.init_stddev=...",
        )
