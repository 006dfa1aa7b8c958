"""The loop of the original program, as in tutorials: eager TensorFlow, or with the step in a `tf.function`.

Source: the guides "Basic training loops" and "Writing a training loop from scratch" of TensorFlow.
"""

from typing import Any

from benchmarks.loops import BATCH, LR, Loop, Weights

VARIANTS = ("TensorFlow, eager tutorial loop", "TensorFlow, tf.function step", "TensorFlow, XLA step")


def prepare(variant: str, x: Any, y: Any, start: Weights) -> Loop:
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((tf.constant(x, tf.float32) / 255.0, y)).batch(BATCH)
    w1, b1, w2, b2, w3, b3 = params = [tf.Variable(array) for array in start]

    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            h1 = tf.nn.relu(tf.reshape(images, [-1, 784]) @ w1 + b1)
            h2 = tf.nn.relu(h1 @ w2 + b2)
            loss = tf.reduce_mean(tf.square(tf.one_hot(labels, depth=10) - (h2 @ w3 + b3)))
        for param, grad in zip(params, tape.gradient(loss, params), strict=True):
            param.assign_sub(LR * grad)
        return loss

    if "eager" not in variant:
        step = tf.function(step, jit_compile="XLA" in variant)

    def epoch() -> float:
        loss = 0.0
        for images, labels in dataset:
            loss = step(images, labels)
        return float(loss)

    return epoch, lambda: [param.numpy() for param in params]
