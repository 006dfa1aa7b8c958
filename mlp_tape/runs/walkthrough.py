"""A walkthrough of one training step, operation by operation, with a demonstration of the two pitfalls."""

from collections.abc import Iterator

import tensorflow as tf

from mlp_tape.runs.trainer import Trainer
from mlp_tape.tensors.network import Params, forward
from mlp_tape.training import train_step
from mlp_tape.training.state import State
from mlp_tape.training.trace import trace_step
from mlp_tape.training.train_step import PitfallError

WIDTHS = (22, 38, 16)  # of the columns: name, operation, shape


def walkthrough(trainer: Trainer) -> Iterator[str]:
    """Runs the first step of a run eagerly, and yields a description of it, line by line.

    Args:
        trainer: trainer of the run.
    """
    params = trainer.state_at(None).params
    x, y = (tf.constant(array) for array in trainer.batches.at(0))
    lr = tf.constant(trainer.rate.at(0), tf.float32)
    yield _line("", "", "shape", "dtype    min to max")
    yield "1  Parameters: tf.Variable, as the tape records nothing else"
    headings = {
        "x": "2  Forward, inside `with tf.GradientTape() as tape:`",
        f"gradient of {list(params)[-1]}": "3  Backward: `grads = tape.gradient(loss, params)`",
        f"{next(iter(params))} after the update": "4  Update in place: `param.assign_sub(update)`, "
        f"{trainer.settings.optimizer.name} with lr {float(lr):g}",
    }
    before = ""
    for name, tensor in trace_step(trainer.state_at(None), x, y, lr, trainer.step).items():
        if name in headings:
            yield headings[name]
        yield _tensor(name, _operation(name, before, trainer, len(params) // 2), tensor)
        before = name
    loss, again = (_step(trainer, params, x, y, lr) for _ in range(2))
    yield f"   the loss of this batch: {loss:.6f} before, {again:.6f} after"
    yield from _pitfalls(trainer, params, x, y, lr)


def _pitfalls(trainer: Trainer, params: Params, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor) -> Iterator[str]:
    yield "5  Pitfall: `w1 = tf.constant(...)` in place of `tf.Variable(...)`"
    constant = params | {"w1": tf.constant(params["w1"].numpy())}
    yield from _failure(trainer, constant, x, y, lr)
    yield "6  Pitfall: `w1 = w1 - lr * grad` in place of `w1.assign_sub(lr * grad)`"
    grads = _gradients(trainer, params, x, y)
    replaced = params | {"w1": params["w1"] - lr * grads["w1"]}
    yield f"   the first step works; after it, w1 is no longer a tf.Variable: {_kind(replaced['w1'])}"
    yield from _failure(trainer, replaced, x, y, lr)


def _failure(trainer: Trainer, params: Params, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor) -> Iterator[str]:
    """Yields the gradients that the tape returns for such parameters, and the error of `train_step`."""
    grads = _gradients(trainer, params, x, y)
    found = ", ".join(f"{name}: {'None' if grad is None else 'present'}" for name, grad in grads.items())
    yield f"   w1 is {_kind(params['w1'])}; gradients: {found}"
    try:
        _step(trainer, params, x, y, lr)
    except PitfallError as error:
        yield f"   train_step rejects it: {error}"


def _step(trainer: Trainer, params: Params, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor) -> float:
    """Runs a first step in place, and returns the loss before its update."""
    slots, seed = trainer.state_at(None).slots, trainer.state_at(None).seed
    return float(train_step.train_step(State(params, slots, 0, seed), x, y, lr, trainer.step).loss)


def _gradients(trainer: Trainer, params: Params, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor | None]:
    """Computes the gradients of parameters, not all of which need be variables."""
    x = train_step.inputs(x, trainer.state_at(None), trainer.step)
    with tf.GradientTape() as tape:
        logits = forward(train_step.cast(params, trainer.step.precision), x, trainer.step.activation)
        loss = train_step.objective(logits, y, params, trainer.step)
    grads: dict[str, tf.Tensor | None] = tape.gradient(loss, params)
    return grads


def _operation(name: str, before: str, trainer: Trainer, depth: int) -> str:
    """Describes the operation that computes a tensor of `trace_step`, given the name of the previous one."""
    settings, kind = trainer.settings, name[0]
    if name == "x":
        moved = "moved(images)" if trainer.step.shift or trainer.step.rotate else "images"
        scale = trainer.step.scale
        if scale.offset:
            return f"(reshape(cast({moved})) - mean) / deviation"
        return f"reshape(cast({moved}) / {scale.divisor[0]:g})"
    if name == "loss":
        return f"{settings.loss}(y, logits)" + (" + l2 * squares" if trainer.step.l2 else "")
    if " " in name:  # a gradient, or a parameter after the update
        return ""
    if kind == "w":
        stddev = f", stddev {settings.model.init_stddev:g}"
        return settings.model.init.replace("_", " ") + stddev * (settings.model.init == "truncated_normal")
    if kind == "h":
        activated = f"{settings.model.activation}({before})"
        return f"dropout({activated})" if trainer.step.dropout else activated
    if kind == "b":
        return "zeros"
    layer = name[1:] if kind == "z" else depth
    return f"{before} @ w{layer} + b{layer}"


def _kind(value: object) -> str:
    return "a tf.Variable" if isinstance(value, tf.Variable) else "a tf.Tensor"


def _tensor(name: str, operation: str, tensor: tf.Tensor) -> str:
    values = tensor.numpy()
    spread = f"{values.dtype!s:<8} {values.min():.4g}"
    return _line(
        name, operation, str(tuple(values.shape)), spread + (f" to {values.max():.4g}" if values.ndim else "")
    )


def _line(name: str, operation: str, shape: str, rest: str) -> str:
    columns = (f"{text:<{width}}" for text, width in zip((name, operation, shape), WIDTHS, strict=True))
    return "   " + " ".join([*columns, rest]).rstrip()
