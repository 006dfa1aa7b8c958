"""One batch through the network, told operation by operation, and the two pitfalls shown going wrong."""

from collections.abc import Iterator

import tensorflow as tf

from mlp_tape.runs.trainer import Plan
from mlp_tape.tensors.network import Params
from mlp_tape.training import train_step
from mlp_tape.training.trace import walk
from mlp_tape.training.train_step import PitfallError

WIDTHS = (22, 38, 16)  # of the columns: name, operation, shape


def lesson(plan: Plan) -> Iterator[str]:
    """Runs the first step of a run eagerly, and yields what is to be seen of it, line by line.

    Args:
        plan: what would be trained, and on what.
    """
    params = plan.state_at(None).params
    x, y = (tf.constant(array) for array in plan.batch(0))
    lr = tf.constant(plan.lr(0), tf.float32)
    yield _line("", "", "shape", "dtype    min to max")
    yield "1  Parameters: tf.Variable, for the tape records nothing else"
    headings = {
        "x": "2  Forward, inside `with tf.GradientTape() as tape:`",
        f"gradient of {list(params)[-1]}": "3  Backward: `grads = tape.gradient(loss, params)`",
        f"{next(iter(params))} after the update": "4  Update in place: `param.assign_sub(update)`, "
        f"{plan.settings.optimizer.name} with lr {float(lr):g}",
    }
    before = ""
    for name, tensor in walk(plan.state_at(None), x, y, lr, plan.recipe, 0, plan.settings.seed):
        if name in headings:
            yield headings[name]
        yield _tensor(name, _operation(name, before, plan, len(params) // 2), tensor)
        before = name
    loss, again = (_step(plan, params, x, y, lr) for _ in range(2))
    yield f"   the loss of this batch: {loss:.6f} before, {again:.6f} after"
    yield from _pitfalls(plan, params, x, y, lr)


def _pitfalls(plan: Plan, params: Params, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor) -> Iterator[str]:
    yield "5  Pitfall: `w1 = tf.constant(...)` in place of `tf.Variable(...)`"
    constant = params | {"w1": tf.constant(params["w1"].numpy())}
    yield from _gone_wrong(plan, constant, x, y, lr)
    yield "6  Pitfall: `w1 = w1 - lr * grad` in place of `w1.assign_sub(lr * grad)`"
    grads = _gradients(plan, params, x, y)
    replaced = params | {"w1": params["w1"] - lr * grads["w1"]}
    yield f"   the first step works; after it, w1 is no longer a tf.Variable: {_kind(replaced['w1'])}"
    yield from _gone_wrong(plan, replaced, x, y, lr)


def _gone_wrong(plan: Plan, params: Params, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor) -> Iterator[str]:
    """What the tape says of such parameters, and what `train_step` says to that."""
    grads = _gradients(plan, params, x, y)
    found = ", ".join(f"{name}: {'None' if grad is None else 'there'}" for name, grad in grads.items())
    yield f"   w1 is {_kind(params['w1'])}; gradients: {found}"
    try:
        _step(plan, params, x, y, lr)
    except PitfallError as error:
        yield f"   train_step refuses it: {error}"


def _step(plan: Plan, params: Params, x: tf.Tensor, y: tf.Tensor, lr: tf.Tensor) -> float:
    """Runs the first step, and returns the loss before it."""
    slots = plan.state_at(None).slots
    loss, *_ = train_step.train_step(params, x, y, lr, plan.recipe, slots, 0, plan.settings.seed)
    return float(loss)


def _gradients(plan: Plan, params: Params, x: tf.Tensor, y: tf.Tensor) -> dict[str, tf.Tensor | None]:
    with tf.GradientTape() as tape:
        through = dict(train_step.through(params, train_step.inputs(x, plan.recipe), plan.recipe))
        loss = train_step.objective(params, y, through["logits"], plan.recipe)
    grads: dict[str, tf.Tensor | None] = tape.gradient(loss, params)
    return grads


def _operation(name: str, before: str, plan: Plan, depth: int) -> str:
    """What makes a tensor of `walk`, of the one before it where that is not said."""
    settings, kind = plan.settings, name[0]
    if name == "x":
        moved = "moved(images)" if plan.recipe.shift or plan.recipe.rotate else "images"
        return f"reshape(cast({moved}) / {plan.recipe.scale:g})"
    if name == "loss":
        return f"{settings.loss}(y, logits)" + (" + l2 * squares" if plan.recipe.l2 else "")
    if " " in name:  # a gradient, or a parameter after the update
        return ""
    if kind == "w":
        stddev = f", stddev {settings.model.init_stddev:g}"
        return settings.model.init.replace("_", " ") + stddev * (settings.model.init == "truncated_normal")
    if kind == "h":
        activated = f"{settings.model.activation}({before})"
        return f"dropout({activated})" if plan.recipe.dropout else activated
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
