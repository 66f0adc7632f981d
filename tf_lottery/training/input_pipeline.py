"""The way of examples to the device, for training and for evaluation."""

import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tf_lottery.data import Split, nested
from tf_lottery.training import batch_sampler

EVALUATION_BATCH = 2_500
RESIDENT = 2 << 30
"""Bytes of a split that lie on the device as a whole; larger ones stream."""
WINDOW = 64 << 20
"""Bytes of training inputs that are on their way at a time, about."""


class Examples(NamedTuple):
    """Examples on the device, nested as the model takes them.

    Attributes:
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`, or None.
        sample_weight: Weight of each example in the loss, or None.
    """

    x: Any
    y: Any
    sample_weight: Any


def examples_of(split: Split) -> Examples:
    """Returns the examples of a split as tensors."""
    return Examples(*nested.map_arrays(tf.constant, split.parts))


def gather(examples: Examples, rows: tf.Tensor) -> Examples:
    """Returns some of the examples.

    Args:
        examples: All of them.
        rows: Indices, int32 `[batch]`.
    """
    return Examples(
        *nested.map_arrays(lambda a: tf.gather(a, rows), tuple(examples))
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Buffer:
    """Examples that lie on the device, and the batches made of them.

    Attributes:
        examples: Inputs, targets, weights.
        first: The step of the first batch.
        orders: Of each network, which examples make up each batch, int32
            `[steps, batch]`.
        split: The same examples as arrays.
    """

    examples: Examples
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
        examples: Inputs, targets, weights.
        split: The same examples as arrays.
    """

    examples: Examples
    split: Split


@dataclasses.dataclass(frozen=True)
class Batching:
    """How training examples become batches.

    Attributes:
        size: Examples a step.
        shuffle: Whether each epoch is shuffled.
        keeps_remainder: Whether examples that do not fill a batch at the end
            of an epoch are a smaller batch, as in Keras. If not, they sit the
            epoch out.
    """

    size: int
    shuffle: bool = True
    keeps_remainder: bool = False


class InputPipeline(Protocol):
    """Training data, in the order that each network sees them.

    Attributes:
        steps_per_epoch: Batches in the data.
    """

    steps_per_epoch: int

    def windows(self, seeds: Sequence[int], step: int) -> Iterator[Buffer]:
        """Yields windows from that of a step on, without end.

        Args:
            seeds: Of each network, the seed of its order.
            step: The step to go on from.
        """


def feed(split: Split, batching: Batching) -> InputPipeline:
    """Returns training data as they reach the device best."""
    kind = Streaming if streams(split) else InMemory
    return kind(split, batching)


def streams(split: Split) -> bool:
    """Returns whether a split is too large to lie on the device."""
    return split.nbytes > RESIDENT


class _Rows(NamedTuple):
    """Batches of one size that follow each other in an epoch.

    Attributes:
        step: The step of the epoch that the first one is.
        steps: How many.
        size: Examples in each.
        first: Where in the order of the epoch the first one begins.
    """

    step: int
    steps: int
    size: int
    first: int

    def of(self, whole: np.ndarray) -> np.ndarray:
        """Returns their rows of an epoch's order, int32 `[steps, size]`."""
        stop = self.first + self.steps * self.size
        return whole[self.first : stop].reshape(self.steps, self.size)


class _Epochs:
    """What `InMemory` and `Streaming` share: where the batches lie.

    Args:
        split: The examples.
        batching: How they become batches.
    """

    def __init__(self, split: Split, batching: Batching) -> None:
        self._split, self._batching = split, batching
        whole, rest = divmod(len(split), batching.size)
        self._whole = whole
        self._rest = rest if batching.keeps_remainder else 0
        self.steps_per_epoch = whole + bool(self._rest)

    def _rows(self, most: int) -> list[_Rows]:
        """Returns the batches of an epoch, at most so many in a piece.

        All pieces are of one size, for which a program is compiled once; the
        last of them reaches back.
        """
        size = self._batching.size
        most = max(1, min(most, self._whole))
        starts = [
            min(start, self._whole - most)
            for start in range(0, self._whole, most)
        ]
        rows = [_Rows(start, most, size, start * size) for start in starts]
        if self._rest:
            rows.append(_Rows(self._whole, 1, self._rest, self._whole * size))
        return rows

    def _places(self, most: int, step: int) -> Iterator[tuple[int, _Rows]]:
        """Yields epoch and batches, from those of a step on, without end."""
        epoch, step = divmod(step, self.steps_per_epoch)
        while True:
            for rows in self._rows(most):
                if rows.step + rows.steps > step:
                    yield epoch, rows
            epoch, step = epoch + 1, 0

    def _orders(
        self, seeds: Sequence[int], epoch: int, rows: _Rows
    ) -> list[np.ndarray]:
        count, shuffle = len(self._split), self._batching.shuffle
        return [
            rows.of(batch_sampler.epoch_order(seed, epoch, count, shuffle))
            for seed in seeds
        ]


class InMemory(_Epochs):
    """Training data that lies on the device as a whole.

    Args:
        split: The examples.
        batching: How they become batches.
    """

    def __init__(self, split: Split, batching: Batching) -> None:
        super().__init__(split, batching)
        self._examples = examples_of(split)

    def windows(self, seeds: Sequence[int], step: int) -> Iterator[Buffer]:
        """Yields epochs from that of a step on."""
        for epoch, rows in self._places(self._whole, step):
            first = epoch * self.steps_per_epoch + rows.step
            orders = self._orders(seeds, epoch, rows)
            yield Buffer(self._examples, self._split, first, orders)


class Streaming(_Epochs):
    """Training data that are gathered on the host, a window before they train.

    Batches are those of `InMemory`: each epoch is shuffled as a whole.

    Args:
        split: The examples, a `np.memmap` for one.
        batching: How they become batches.
    """

    def __init__(self, split: Split, batching: Batching) -> None:
        super().__init__(split, batching)
        bytes_a_step = batching.size * Split(split.rows(slice(0, 1)).x).nbytes
        self._most = max(1, WINDOW // bytes_a_step)

    def windows(self, seeds: Sequence[int], step: int) -> Iterator[Buffer]:
        """Yields parts of epochs."""
        places = self._places(self._most, step)
        with concurrent.futures.ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._window, seeds, *next(places))
            while True:
                window = coming.result()
                coming = ahead.submit(self._window, seeds, *next(places))
                yield window

    def _window(self, seeds: Sequence[int], epoch: int, rows: _Rows) -> Buffer:
        wanted = self._orders(seeds, epoch, rows)
        flat = np.concatenate([each.ravel() for each in wanted])
        part = self._split.rows(flat)
        places = np.arange(len(flat), dtype=np.int32)
        orders = places.reshape(len(seeds), *wanted[0].shape)
        return Buffer(
            examples_of(part),
            part,
            epoch * self.steps_per_epoch + rows.step,
            list(orders),
        )


def evaluation_batches(split: Split, size: int) -> Iterable[Batch]:
    """Returns a split in batches of a size; the last one may be smaller."""
    batches = _Batches(split, min(size, len(split)))
    return batches if streams(split) else list(batches)


def even_size(examples: int) -> int:
    """Returns a size of batches that evaluates examples fast.

    At most `EVALUATION_BATCH`, and, if one is near, a divisor of their
    number: a last batch of another size is a program of its own to compile.
    """
    fewest = -(-examples // EVALUATION_BATCH)
    for count in range(fewest, 2 * fewest + 1):
        if examples % count == 0:
            return examples // count
    return min(examples, EVALUATION_BATCH)


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Batches that are made each time they are asked for."""

    split: Split
    size: int

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.split), self.size):
            part = self.split.rows(slice(start, start + self.size))
            yield Batch(examples_of(part), part)
