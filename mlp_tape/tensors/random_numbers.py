"""Random numbers within a step: pure functions of the seed of the run and the step number.

A resumed run therefore draws the same numbers as an uninterrupted one, and both engines draw the same
numbers. TensorFlow's stateless generators do not guarantee this: XLA implements them differently.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

Stream = tuple[tf.Tensor | int, tf.Tensor | int, int]  # seed of the run, step number, index of the draw

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
PARITY = 0x1BD11BDA


def uniform(shape: Sequence[int], stream: Stream) -> tf.Tensor:
    """Draws numbers uniformly from [0, 1).

    Args:
        shape: shape of the result; must be static.
        stream: seed, from 0 to 2**32 - 1; step number, in the same range; and an index that differs for each
            draw within the step.

    Returns:
        float32 of the given shape, multiples of 2**-24.
    """
    seed, step, use = (tf.cast(number, tf.uint32) for number in stream)
    n = math.prod(shape)
    index = tf.cast(tf.range(-(-n // 2)), tf.uint32)  # each counter yields two numbers
    drawn = tf.concat(threefry((index, tf.zeros_like(index) + step), (seed, use)), axis=0)[:n]
    upper = tf.cast(tf.bitwise.right_shift(drawn, tf.constant(8, tf.uint32)), tf.float32)  # 24 bits
    return tf.reshape(upper * 2.0**-24, shape)


def threefry(counter: Sequence[tf.Tensor], key: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the counter-based generator Threefry-2x32 with 20 rounds.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

    Args:
        counter: two uint32 tensors of the same shape; a pair of values must not be used twice with one key.
        key: two uint32 scalars that identify the stream.

    Returns:
        Two uint32 tensors of the shape of the counters.
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
    """Rotates the bits of a word to the left by `by` positions, from 1 to 31."""
    left = tf.bitwise.left_shift(word, tf.constant(by, tf.uint32))
    return left | tf.bitwise.right_shift(word, tf.constant(32 - by, tf.uint32))
