"""This module knows how examples reach the device, and in which order."""

import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from tf_lottery.data import Split
from tf_lottery.training import order

EVALUATION_BATCH = 2_500
RESIDENT = 2 << 30
"""Bytes of a split that lie on the device as a whole; larger ones stream."""
WINDOW = 64 << 20
"""Bytes of training inputs that are on their way at a time, about."""


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """Examples that lie on the device, and the batches made of them.

    Attributes:
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`.
        first: The step of the first batch.
        orders: Of each network, which examples make up each batch, int32
            `[steps, batch]`.
        split: The same examples as arrays.
    """

    x: tf.Tensor
    y: tf.Tensor
    split: Split
    first: int
    orders: Sequence[np.ndarray]

    @property
    def stop(self) -> int:
        """The step after the last batch."""
        return self.first + len(self.orders[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Examples to evaluate on.

    Attributes:
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`.
        counts: 1 where an example counts, 0 where it was in an earlier batch;
            float32 `[examples]`.
        split: The same examples as arrays.
    """

    x: tf.Tensor
    y: tf.Tensor
    split: Split
    counts: tf.Tensor


class Feed(Protocol):
    """Training data, in the order that each network sees them.

    Attributes:
        steps_per_epoch: Whole batches in the data.
    """

    steps_per_epoch: int

    def windows(self, seeds: Sequence[int], step: int) -> Iterator[Window]:
        """Yields windows from that of a step on, without end.

        Args:
            seeds: Of each network, the seed of its order.
            step: The step to go on from.
        """


def feed(split: Split, batch_size: int) -> Feed:
    """Returns training data as they reach the device best."""
    kind = Streamed if streams(split) else Resident
    return kind(split, batch_size)


def streams(split: Split) -> bool:
    """Returns whether a split is too large to lie on the device."""
    return split.x.nbytes + split.y.nbytes > RESIDENT


class Resident:
    """Training data that lies on the device as a whole.

    Args:
        split: The examples.
        batch_size: Examples a step.
    """

    def __init__(self, split: Split, batch_size: int) -> None:
        self._split = split
        self._x, self._y = tf.constant(split.x), tf.constant(split.y)
        self._batch_size = batch_size
        self.steps_per_epoch = len(split) // batch_size

    def windows(self, seeds: Sequence[int], step: int) -> Iterator[Window]:
        """Yields epochs from that of a step on."""
        epoch = step // self.steps_per_epoch
        while True:
            orders = [
                order.batches(seed, epoch, len(self._x), self._batch_size)
                for seed in seeds
            ]
            first = epoch * self.steps_per_epoch
            yield Window(self._x, self._y, self._split, first, orders)
            epoch += 1


class Streamed:
    """Training data that are gathered on the host, a window before they train.

    Batches are those of `Resident`: each epoch is shuffled as a whole.

    Args:
        split: The examples, a `np.memmap` for one.
        batch_size: Examples a step.
    """

    def __init__(self, split: Split, batch_size: int) -> None:
        self._split, self._batch_size = split, batch_size
        self.steps_per_epoch = len(split) // batch_size
        bytes_a_step = batch_size * split.x[:1].nbytes
        steps = max(1, min(WINDOW // bytes_a_step, self.steps_per_epoch))
        self._steps = steps

    def windows(self, seeds: Sequence[int], step: int) -> Iterator[Window]:
        """Yields parts of epochs, all of one size; the last reaches back."""
        places = self._places(step)
        with concurrent.futures.ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._window, seeds, *next(places))
            while True:
                window = coming.result()
                coming = ahead.submit(self._window, seeds, *next(places))
                yield window

    def _places(self, step: int) -> Iterator[tuple[int, int]]:
        """Yields epoch and first row of windows."""
        epoch, row = divmod(step, self.steps_per_epoch)
        row -= row % self._steps
        while True:
            for begin in range(row, self.steps_per_epoch, self._steps):
                yield epoch, min(begin, self.steps_per_epoch - self._steps)
            epoch, row = epoch + 1, 0

    def _window(self, seeds: Sequence[int], epoch: int, row: int) -> Window:
        rows = slice(row, row + self._steps)
        wanted = [
            order.batches(seed, epoch, len(self._split), self._batch_size)[rows]
            for seed in seeds
        ]
        flat = np.concatenate([each.ravel() for each in wanted])
        part = Split(self._split.x[flat], self._split.y[flat])
        places = np.arange(len(flat), dtype=np.int32)
        orders = places.reshape(len(seeds), *wanted[0].shape)
        return Window(
            tf.constant(part.x),
            tf.constant(part.y),
            part,
            epoch * self.steps_per_epoch + row,
            list(orders),
        )


def evaluation_batches(split: Split) -> Iterable[Batch]:
    """Returns a split in batches of one shape; the last one reaches back."""
    return _Batches(split) if streams(split) else list(_Batches(split))


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Batches that are made each time they are asked for."""

    split: Split

    def __iter__(self) -> Iterator[Batch]:
        split = self.split
        size = min(EVALUATION_BATCH, len(split))
        for begin in range(0, len(split), size):
            start = min(begin, len(split) - size)
            counts = np.arange(start, start + size) >= begin
            part = Split(*(a[start : start + size] for a in (split.x, split.y)))
            yield Batch(
                tf.constant(part.x),
                tf.constant(part.y),
                part,
                tf.constant(counts, tf.float32),
            )
