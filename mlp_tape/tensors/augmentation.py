"""Data augmentation: random shifts and rotations of images, drawn again at each step."""

import math

import tensorflow as tf

from mlp_tape.tensors.constants import Constant
from mlp_tape.tensors.random_numbers import Stream, uniform


def moved(images: tf.Tensor, shift: Constant, rotate: Constant, stream: Stream) -> tf.Tensor:
    """Rotates each image about its centre and shifts it, by random amounts drawn for each image.

    Each output pixel is interpolated bilinearly at the corresponding point of the input image (Simard et al.
    2003, "Best practices for convolutional neural networks"). Pixels outside the input image count as 0.

    Args:
        images: float32 [b, height, width].
        shift: maximum shift along each axis in either direction, in pixels, at least 0.
        rotate: maximum rotation in either direction, in degrees, from 0 to 180.
        stream: random number stream; see `random_numbers.uniform`.

    Returns:
        float32 [b, height, width].
    """
    b, height, width = images.shape
    draw = 2 * uniform([3, b, 1, 1], stream) - 1
    pixels, radians = tf.cast(shift, tf.float32), tf.cast(rotate * (math.pi / 180), tf.float32)
    down, right, angle = pixels * draw[0], pixels * draw[1], radians * draw[2]  # [b,1,1] each
    y = tf.reshape(tf.range(height, dtype=tf.float32) - (height - 1) / 2, [1, height, 1])
    x = tf.reshape(tf.range(width, dtype=tf.float32) - (width - 1) / 2, [1, 1, width])
    y, x = y - down, x - right  # [b,height,1], [b,1,width]
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _between(images, cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2)


def _between(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Interpolates bilinearly at the points (y, x); all arguments are float32 [b, height, width]."""
    b, height, width = images.shape
    flat = tf.reshape(images, [b, height * width])
    top, left = tf.floor(y), tf.floor(x)
    value = tf.zeros_like(y)
    for row, part_y in ((top, top + 1 - y), (top + 1, y - top)):
        for column, part_x in ((left, left + 1 - x), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = tf.cast(tf.where(inside, row * width + column, 0.0), tf.int32)
            pixel = tf.gather(flat, tf.reshape(at, [b, -1]), batch_dims=1)  # [b,h*w] at [b,h*w]
            value += tf.where(inside, part_y * part_x * tf.reshape(pixel, [b, height, width]), 0.0)
    return value
