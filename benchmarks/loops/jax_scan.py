"""JAX: the whole epoch in one jitted call with `lax.scan` over the batches, or a jitted step.

Source: JAX's documentation of `jax.lax.scan` and `jax.jit` (`donate_argnums`), and its example
`mnist_classifier_fromscratch.py`.
"""

from typing import Any

from benchmarks.loops import BATCH, LR, Loop, Weights

VARIANTS = ("JAX, lax.scan", "JAX, jitted step")


def prepare(variant: str, x: Any, y: Any, start: Weights) -> Loop:
    import jax
    import jax.numpy as jnp

    images, labels = jnp.asarray(x.reshape(-1, 784), jnp.float32) / 255, jnp.asarray(y)
    n = len(x) // BATCH * BATCH
    full = images[:n].reshape(-1, BATCH, 784), labels[:n].reshape(-1, BATCH)
    rest = images[n:], labels[n:]
    state = [jnp.asarray(array) for array in start]

    def loss_of(params: Any, images: Any, labels: Any) -> Any:
        w1, b1, w2, b2, w3, b3 = params
        h1 = jax.nn.relu(images @ w1 + b1)
        h2 = jax.nn.relu(h1 @ w2 + b2)
        return jnp.mean((jax.nn.one_hot(labels, 10) - (h2 @ w3 + b3)) ** 2)

    def step(params: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(params, *batch)
        return [param - LR * grad for param, grad in zip(params, grads, strict=True)], loss

    scanned = jax.jit(lambda params: jax.lax.scan(step, params, full), donate_argnums=0)
    single = jax.jit(step, donate_argnums=0)
    batches = [(full[0][i], full[1][i]) for i in range(n // BATCH)] if "step" in variant else []

    def epoch() -> float:
        nonlocal state
        if batches:
            for batch in batches:
                state, loss = single(state, batch)
        else:
            state, _losses = scanned(state)
        state, loss = single(state, rest)
        return float(loss)

    import numpy as np

    return epoch, lambda: [np.asarray(array) for array in state]
