"""Replay of any step of a run: trains up to it from the nearest checkpoint, and returns its tensors."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlp_tape.errors import ConfigError
from mlp_tape.runs import recorded_data
from mlp_tape.runs.recorded import Recorded
from mlp_tape.runs.recorded_data import Say
from mlp_tape.runs.run import resolved
from mlp_tape.runs.trainer import Trainer
from mlp_tape.storage import checkpoint, run_paths
from mlp_tape.storage.checkpoint import Checkpoint
from mlp_tape.system.formatting import count
from mlp_tape.training.trace import arrays_of_step

Tensors = dict[str, NDArray[Any]]
IMAGES, LABELS, LOSS = "images", "labels", "loss"
SHOWN = 32  # labels


def replay(trainer: Trainer, directory: Path | None, step: int) -> Tensors:
    """Trains up to a step and runs it; returns its tensors by name.

    Loss, gradients, updates and all that follows are those of the engine of the run, bit for bit. The tensors
    of the forward pass, which a compiled step does not keep, are computed once more, operation by operation,
    and may differ from those of the compiled step in the last bits.

    Args:
        trainer: trainer of the run.
        directory: directory of the run, for its checkpoints; None to begin with the first step.
        step: global number of the step, from 0.

    Returns:
        In order of computation: `images` and `labels` of the batch; the parameters w1, b1, ... before the
        step; slots of the optimizer such as `velocity/w1` before it; x, z1, h1, ..., logits, loss; `gradient
        of b3`, ... from the last parameter to the first; `update of w1`, ...; `w1 after the update`, ...; and
        `velocity/w1 after the update`, ...

    Raises:
        ConfigError: the run has no such step.
    """
    if not 0 <= step < trainer.steps:
        raise ConfigError(
            f"step={step}: the run has {count(trainer.steps, 'step')}, from 0",
            f"type step={min(max(step, 0), trainer.steps - 1)}",
        )
    now = trainer.state_at(nearest(directory, step))
    for _ in trainer.train(now, until=step):
        pass
    before = now.arrays()
    images, labels = trainer.batches.at(step)
    steps = trainer.one_step(now)
    again = trainer.state_at(Checkpoint(step, before, {}))
    traced = arrays_of_step(again, images, labels, trainer.rate.at(step), trainer.step)
    found: Tensors = {IMAGES: images, LABELS: labels, **before}
    found |= {name: each for name, each in traced.items() if name not in before and " " not in name}
    found[LOSS] = steps.losses[0]
    found |= {f"gradient of {name}": steps.grads[name].numpy() for name in reversed(now.params)}
    found |= {f"update of {name}": steps.updates[name].numpy() for name in now.params}
    return found | {f"{name} after the update": each for name, each in now.arrays().items()}


def trainer_of(run: Recorded, path: str | None, say: Say) -> Trainer:
    """Returns the trainer of a run as it is recorded, with its data, as `recorded_data.find` finds them."""
    place, dataset = recorded_data.find(run, path, say)
    return Trainer(*resolved(dataclasses.replace(run.settings, dataset=place), dataset))


def nearest(directory: Path | None, step: int) -> Checkpoint | None:
    """Returns the last valid checkpoint at or before a step; None if there is none."""
    if directory is None:
        return None
    found = checkpoint.usable(directory / run_paths.CHECKPOINTS, lambda text: None)
    return next((each for each in found if each.step <= step), None)


def table(tensors: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yields a line for each tensor: name, shape, dtype, range, Euclidean norm, and values not finite."""
    yield f"{'tensor':<26} {'shape':<18} {'dtype':<8} {'min':>12} {'max':>12} {'norm':>12}  not finite"
    for name, values in tensors.items():
        finite = values[np.isfinite(values)]
        low, high = (f"{finite.min():.4g}", f"{finite.max():.4g}") if finite.size else ("-", "-")
        norm = f"{np.linalg.norm(finite.astype(np.float64).ravel()):.4g}" if finite.size else "-"
        bad = values.size - finite.size
        shape = str(tuple(values.shape))
        line = f"{name:<26} {shape:<18} {values.dtype!s:<8} {low:>12} {high:>12} {norm:>12}  {bad or ''}"
        yield line.rstrip()


def labels_line(labels: NDArray[Any], names: tuple[str, ...]) -> str:
    """Returns the labels of a batch in a line."""
    shown = " ".join(names[label] for label in labels[:SHOWN].tolist())
    return f"{shown} ..." if len(labels) > SHOWN else shown
