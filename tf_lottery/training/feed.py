"""This module knows how examples reach the device, and in which order."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from tf_lottery.data import Split
from tf_lottery.training import order

EVALUATION_BATCH = 2_500


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
        """Yields windows from the epoch of a step on, without end.

        Args:
            seeds: Of each network, the seed of its order.
            step: The step to go on from.
        """
        epoch = step // self.steps_per_epoch
        while True:
            orders = [
                order.batches(seed, epoch, len(self._x), self._batch_size)
                for seed in seeds
            ]
            first = epoch * self.steps_per_epoch
            yield Window(self._x, self._y, self._split, first, orders)
            epoch += 1


def evaluation_batches(split: Split) -> list[Batch]:
    """Returns a split in batches of one shape; the last one reaches back."""
    size = min(EVALUATION_BATCH, len(split))
    batches = []
    for begin in range(0, len(split), size):
        start = min(begin, len(split) - size)
        counts = np.arange(start, start + size) >= begin
        part = Split(*(a[start : start + size] for a in (split.x, split.y)))
        batches.append(
            Batch(
                tf.constant(part.x),
                tf.constant(part.y),
                part,
                tf.constant(counts, tf.float32),
            )
        )
    return batches
