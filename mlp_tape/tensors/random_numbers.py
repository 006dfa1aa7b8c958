"""Random numbers within a step: pure functions of the run's seed and the step's number.

So a resumed run draws what one that was never stopped would have drawn, and both engines draw the same, which
TensorFlow's own stateless generators do not: XLA has other ones.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

Stream = tuple[tf.Tensor | int, tf.Tensor | int, int]  # the run's seed, the step's number, which of its draws

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA


def uniform(shape: Sequence[int], stream: Stream) -> tf.Tensor:
    """Draws numbers from 0 to below 1, evenly.

    Args:
        shape: of what is drawn, known before.
        stream: seed, from 0 to 2**32 - 1; step, likewise; and a number for each use within the step.

    Returns:
        float32, multiples of 2**-24.
    """
    seed, step, use = (tf.cast(number, tf.uint32) for number in stream)
    n = math.prod(shape)
    index = tf.cast(tf.range(-(-n // 2)), tf.uint32)  # two numbers come of each
    drawn = tf.concat(threefry((index, tf.zeros_like(index) + step), (seed, use)), axis=0)[:n]
    upper = tf.cast(tf.bitwise.right_shift(drawn, tf.constant(8, tf.uint32)), tf.float32)  # 24 bits
    return tf.reshape(upper * 2.0**-24, shape)


def threefry(counter: Sequence[tf.Tensor], key: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes two words of two, each bit of which looks like chance: Threefry-2x32 with 20 rounds.

    It adds, rotates and mixes, and remembers nothing (Salmon et al. 2011, "Parallel random numbers: as easy
    as 1, 2, 3").

    Args:
        counter: two uint32 of one shape, never the same pair twice.
        key: two uint32 [], of the stream.

    Returns:
        Two uint32 of that shape.
    """
    keys = (*key, key[0] ^ key[1] ^ tf.constant(PARITY, tf.uint32))
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for by in ROTATIONS[group % 2]:
            a += b
            b = _rotated(b, by) ^ a
        a += keys[(group + 1) % 3]
        b += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return a, b


def _rotated(word: tf.Tensor, by: int) -> tf.Tensor:
    """The word with its upper bits moved to its lower end."""
    left = tf.bitwise.left_shift(word, tf.constant(by, tf.uint32))
    return left | tf.bitwise.right_shift(word, tf.constant(32 - by, tf.uint32))
