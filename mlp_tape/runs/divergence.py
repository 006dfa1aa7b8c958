"""Divergence of a run: the step at which it occurred is saved with its batch, and can be replayed."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlp_tape.errors import ConfigError, DivergenceError
from mlp_tape.runs.replay import Tensors, table
from mlp_tape.runs.trainer import Trainer, step_config
from mlp_tape.storage import checkpoint, run_paths
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.system import program
from mlp_tape.training import state
from mlp_tape.training.loop import Block
from mlp_tape.training.state import State
from mlp_tape.training.trace import arrays_of_step


def explained(trainer: Trainer, start: Checkpoint | None, block: Block, directory: Path) -> DivergenceError:
    """Finds the first tensor that is not finite, and saves its step for `replay`.

    Args:
        trainer: trainer of the run.
        start: checkpoint before the block; None for the initial weights.
        block: block with a loss that is not finite.
        directory: directory of the run.

    Returns:
        The error to raise.
    """
    i = int(np.flatnonzero(~np.isfinite(block.losses))[0])
    bad = saved = block.global_step + i
    now = _state_before(bad, trainer, start)
    if bad and not all(np.isfinite(param.numpy()).all() for param in now.params.values()):
        saved = bad - 1  # its loss was finite, but its update was not
        now = _state_before(saved, trainer, start)
    x, y = trainer.batches.at(saved)
    about = {"step_config": trainer.step_names, "lr": trainer.rate.at(saved), "seed": trainer.settings.seed}
    about["layer_sizes"] = trainer.layer_sizes
    arrays = now.arrays() | {"x": x, "y": y}
    checkpoint.save(directory / run_paths.DIVERGENCE, saved, arrays, about)
    name = _first_bad(Checkpoint(saved, arrays, about))
    return DivergenceError(
        f"the loss is {block.losses[i]} at step {bad} (epoch {block.epoch}, step {block.step + i}); "
        f"the first tensor that is not finite is {name}" + (f" of step {saved}" if saved < bad else ""),
        f"{program.tool()} replay {shlex.quote(str(directory))} shows that step; "
        "a smaller lr=... or model.init_stddev=... may prevent it",
    )


def _state_before(global_step: int, trainer: Trainer, start: Checkpoint | None) -> State:
    """Returns the state before a step, by retraining bit-exactly from the checkpoint."""
    now = trainer.state_at(start)
    for _ in trainer.train(now, until=global_step):
        pass
    return now


def _first_bad(saved: Checkpoint) -> str:
    """Returns the name of the first tensor of a step that is not finite, in order of computation."""
    bad = (name for name, values in _traced(saved).items() if not np.isfinite(values).all())
    return next(bad, "the loss as computed in a block; computed step by step, it is finite")


def replay(directory: Path) -> Iterator[str]:
    """Runs the saved step eagerly, and yields a line of text for each of its tensors.

    Args:
        directory: directory of the run.

    Raises:
        ConfigError: the directory contains no saved step.
    """
    saved = next(checkpoint.usable(directory / run_paths.DIVERGENCE, print), None)
    if saved is None:
        raise ConfigError(f"{directory} contains no diverged step", f"{program.tool()} replay RUN_DIRECTORY")
    yield f"step {saved.step}, lr {saved.about['lr']}"
    yield from table(_traced(saved))


def _traced(saved: Checkpoint) -> Tensors:
    """Runs the saved step, and returns its tensors by name."""
    about, arrays = saved.about, dict(saved.arrays)
    x, y = arrays.pop("x"), arrays.pop("y")
    config = step_config(**about.get("step_config") or about["ingredients"])  # the key in older versions
    now = state.restored(arrays, about["layer_sizes"], config.optimizer, saved.step, about["seed"])
    return arrays_of_step(now, x, y, about["lr"], config)
