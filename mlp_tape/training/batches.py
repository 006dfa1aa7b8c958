"""Batches of images and labels, in an order that is a pure function of seed and epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mlp_tape.training import host_arrays

LARGE = 2**30  # bytes of images beyond which they are copied a few batches at a time
WINDOW = 2**25  # bytes of images that are copied together


class Span(NamedTuple):
    """Consecutive batches of one size.

    Attributes:
        images: all batches of this size in the epoch, uint8 or float32 [k, size, ...].
        labels: int32 [k, size].
        first: index into `images` of the first batch of the span.
        n: number of batches in the span.
    """

    images: tf.Tensor
    labels: tf.Tensor
    first: int | tf.Tensor
    n: int | tf.Tensor


@dataclass(frozen=True)
class Epoch:
    """The batches of an epoch, as tensors.

    Attributes:
        full: full batches: images, uint8 or float32 [k, size, ...], and labels, int32 [k, size].
        rest: smaller last batch, [1, r, ...] and [1, r]; r may be 0.
    """

    full: tuple[tf.Tensor, tf.Tensor]
    rest: tuple[tf.Tensor, tf.Tensor]

    def spans(self, start: int, stop: int, first_alone: bool) -> Iterator[Span]:
        """Yields the batches with numbers in [start, stop), grouped into spans.

        Args:
            start: number of the first batch in the epoch, from 0.
            stop: number after the last batch, above `start`.
            first_alone: whether the first batch forms its own span.
        """
        n_full = len(self.full[0])
        cuts = {start, stop, min(max(start, n_full), stop)} | ({start + 1} if first_alone else set())
        for a, b in zip(sorted(cuts), sorted(cuts)[1:], strict=False):
            yield Span(*self.full, a, b - a) if a < n_full else Span(*self.rest, a - n_full, b - a)


@dataclass(frozen=True)
class StreamedEpoch:
    """The batches of an epoch of images that are too large for a copy in memory, a few batches at a time.

    Attributes:
        x: images, uint8 or float32 [n, ...]; they may be memory-mapped.
        y: labels, int32 [n].
        size: number of images in a batch.
        order: numbers of the rows in the order of the epoch, int64 [n]; None for the given order.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    size: int
    order: NDArray[np.int64] | None

    @property
    def window(self) -> int:
        """The number of batches that are copied together."""
        return max(1, min(WINDOW // (self.x[:1].nbytes * self.size), len(self.x) // self.size))

    def spans(self, start: int, stop: int, first_alone: bool) -> Iterator[Span]:
        """Yields the batches with numbers in [start, stop), as `Epoch.spans` does."""
        n_full = len(self.x) // self.size
        while start < min(stop, n_full):
            end = start + 1 if first_alone else min(start + self.window, stop, n_full)
            yield self._span(start, end, self.window)
            start, first_alone = end, False
        if start < stop:
            yield self._span(start, stop, 1, len(self.x) % self.size)

    def _span(self, start: int, stop: int, window: int, size: int = 0) -> Span:
        """Copies the batches [start, stop) into tensors [window, size, ...], whose rest is arbitrary."""
        size = size or self.size
        n = (stop - start) * size
        rows = slice(start * self.size, start * self.size + n)
        x = host_arrays.empty((window * size, *self.x.shape[1:]), self.x.dtype)
        y = np.zeros(window * size, np.int32)
        if self.order is None:
            x[:n], y[:n] = self.x[rows], self.y[rows]
        else:
            np.take(self.x, self.order[rows], axis=0, out=x[:n], mode="clip")
            y[:n] = self.y[self.order[rows]]
        images = _tensor(x.reshape(window, size, *self.x.shape[1:]))
        return Span(images, tf.constant(y.reshape(window, size)), 0, stop - start)

    def shapes(self) -> Epoch:
        """Returns an epoch with the shapes of every span."""
        spans = [self._span(0, 0, self.window), self._span(0, 0, 1, len(self.x) % self.size or self.size)]
        full, rest = ((span.images, span.labels) for span in spans)
        return Epoch(full, rest)


class Batches:
    """Images and labels in batches, for any number of epochs and runs.

    Args:
        x: uint8 or float32 [n, ...]. Must not be modified while the batches are in use: they share its memory
            if it is aligned (`host_arrays.aligned`). Beyond LARGE bytes, no copy of it is made.
        y: int32 [n].
        batch_size: number of images in a batch.
        shuffle_seed: determines the order of each epoch; None for the given order.

    Attributes:
        steps_per_epoch: number of batches per epoch, including the smaller last one.
    """

    def __init__(
        self, x: NDArray[Any], y: NDArray[Any], batch_size: int, shuffle_seed: int | None = None
    ) -> None:
        self._x, self._y, self._size, self._seed = x, y, batch_size, shuffle_seed
        self._is_large = x.nbytes > LARGE
        self._number = 0
        if self._is_large:
            self._epoch = StreamedEpoch(x, y, batch_size, None).shapes()
        else:
            self._epoch = _cut(x, y, batch_size)
        if shuffle_seed is not None:
            self._number = -1  # the given order matches no shuffled epoch, only the shapes
        self.steps_per_epoch = -(-len(x) // batch_size)

    @property
    def shapes(self) -> Epoch:
        """Batches with the shapes of every epoch; their contents may be those of any epoch."""
        return self._epoch

    def epoch(self, number: int) -> Epoch | StreamedEpoch:
        """Returns the batches of an epoch, counted from 0."""
        if self._is_large:
            order = None if self._seed is None else self._order(number)
            return StreamedEpoch(self._x, self._y, self._size, order)
        if self._seed is not None and number != self._number:
            rows = self._order(number)
            self._epoch = _cut(host_arrays.taken(self._x, rows), self._y[rows], self._size)
            self._number = number
        return self._epoch

    def at(self, global_step: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Returns the images and labels of one step of the run, counted from 0."""
        epoch, step = divmod(global_step, self.steps_per_epoch)
        rows: Any = slice(step * self._size, (step + 1) * self._size)
        if self._seed is not None:
            rows = self._order(epoch)[rows]
        return self._x[rows], self._y[rows]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        assert self._seed is not None
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._x))


def _cut(x: NDArray[Any], y: NDArray[Any], batch_size: int) -> Epoch:
    n = len(x) // batch_size * batch_size
    full = x[:n].reshape(-1, batch_size, *x.shape[1:]), y[:n].reshape(-1, batch_size)
    return Epoch((_tensor(full[0]), _tensor(full[1])), (_tensor(x[n:][None]), _tensor(y[n:][None])))


def _tensor(array: NDArray[Any]) -> tf.Tensor:
    """Converts an array to a tensor, without a copy where possible."""
    if not array.size or not host_arrays.is_usable(array) or tf.config.list_logical_devices("GPU"):
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
