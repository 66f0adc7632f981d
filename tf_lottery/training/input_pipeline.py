"""Batches of examples on the device, for training and evaluation."""

import concurrent.futures
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tf_lottery.data import Split, nested
from tf_lottery.training import batch_sampler

EVALUATION_BATCH = 2_500
"""Largest number of examples in an evaluation batch."""
RESIDENT = 2 << 30
"""Largest split, in bytes, that is kept on the device; larger ones stream."""
WINDOW = 64 << 20
"""Approximate size of a streamed buffer, in bytes of inputs."""


class Examples(NamedTuple):
    """Tensors of examples, nested as the model's inputs and outputs are.

    Attributes:
        x: Inputs, `[examples, ...]`.
        y: Targets, `[examples, ...]`, or None.
        sample_weight: Weight of each example in the loss, or None.
    """

    x: Any
    y: Any
    sample_weight: Any


def examples_of(split: Split) -> Examples:
    """Returns the examples of a split as tensors.

    Args:
        split: Arrays of examples.
    """
    return Examples(*nested.map_arrays(tf.constant, split.parts))


def gather(examples: Examples, rows: tf.Tensor) -> Examples:
    """Returns the examples at some rows, in that order.

    Args:
        examples: Tensors of `[examples, ...]`.
        rows: Indices of examples, int32 `[batch]`.
    """
    return Examples(
        *nested.map_arrays(lambda a: tf.gather(a, rows), tuple(examples))
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Buffer:
    """Consecutive training batches, and their examples on the device.

    Attributes:
        examples: Inputs, targets and weights.
        split: The same examples as arrays.
        first: The training step of the first batch.
        orders: Per network, the rows of `examples` in each batch, int32
            `[steps, batch]`.
    """

    examples: Examples
    split: Split
    first: int
    orders: Sequence[np.ndarray]

    @property
    def stop(self) -> int:
        """The training step after the last batch."""
        return self.first + len(self.orders[0])


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """A batch to evaluate on.

    Attributes:
        examples: Inputs, targets and weights.
        split: The same examples as arrays.
    """

    examples: Examples
    split: Split


@dataclasses.dataclass(frozen=True)
class Batching:
    """How training examples are divided into batches.

    Attributes:
        size: Examples per batch, >= 1.
        shuffle: Whether each epoch is shuffled.
        keeps_remainder: Whether the last examples of an epoch, too few for a
            batch, form a smaller batch, as in Keras. If not, that epoch skips
            them.
    """

    size: int
    shuffle: bool = True
    keeps_remainder: bool = False


class InputPipeline(Protocol):
    """Training batches, in the order that each network sees them.

    Attributes:
        steps_per_epoch: Batches per epoch.
    """

    steps_per_epoch: int

    def buffers(self, seeds: Sequence[int], step: int) -> Iterator[Buffer]:
        """Yields buffers without end, the first one with the batch of `step`.

        Args:
            seeds: Seed of the order of each network, >= 0.
            step: The training step to continue from, >= 0.
        """


def create(split: Split, batching: Batching) -> InputPipeline:
    """Returns the input pipeline for a split: in memory, or streaming.

    Args:
        split: The training examples.
        batching: How they are divided into batches.
    """
    kind = Streaming if streams(split) else InMemory
    return kind(split, batching)


def streams(split: Split) -> bool:
    """Returns whether a split is too large to keep on the device.

    Args:
        split: Arrays of examples.
    """
    return split.nbytes > RESIDENT


class _Chunk(NamedTuple):
    """Consecutive batches of one size in an epoch.

    Attributes:
        step: Index in the epoch of the first batch.
        steps: Number of batches.
        size: Examples per batch.
        first: Position of the first example in the order of the epoch.
    """

    step: int
    steps: int
    size: int
    first: int

    def batches(self, order: np.ndarray) -> np.ndarray:
        """Returns the batches, int32 `[steps, size]`.

        Args:
            order: The order of all examples in the epoch, int32 `[examples]`.
        """
        stop = self.first + self.steps * self.size
        return order[self.first : stop].reshape(self.steps, self.size)


class _Epochs:
    """Division of epochs into chunks, for `InMemory` and `Streaming`.

    Args:
        split: The training examples.
        batching: How they are divided into batches.
    """

    def __init__(self, split: Split, batching: Batching) -> None:
        self._split, self._batching = split, batching
        self._full_batches, rest = divmod(len(split), batching.size)
        self._rest = rest if batching.keeps_remainder else 0
        self.steps_per_epoch = self._full_batches + bool(self._rest)

    def _epoch_chunks(self, steps: int) -> list[_Chunk]:
        """Returns the chunks of an epoch, of at most `steps` batches each.

        All have one length, so that one program is compiled; so the last one
        may overlap with the one before it.
        """
        size, full = self._batching.size, self._full_batches
        steps = max(1, min(steps, full))
        starts = [min(start, full - steps) for start in range(0, full, steps)]
        chunks = [_Chunk(start, steps, size, start * size) for start in starts]
        if self._rest:
            chunks.append(_Chunk(full, 1, self._rest, full * size))
        return chunks

    def _chunks(self, steps: int, step: int) -> Iterator[tuple[int, _Chunk]]:
        """Yields epoch and chunk without end, from that of `step` on."""
        epoch, step = divmod(step, self.steps_per_epoch)
        while True:
            for chunk in self._epoch_chunks(steps):
                if chunk.step + chunk.steps > step:
                    yield epoch, chunk
            epoch, step = epoch + 1, 0

    def _orders(
        self, seeds: Sequence[int], epoch: int, chunk: _Chunk
    ) -> list[np.ndarray]:
        count, shuffle = len(self._split), self._batching.shuffle
        return [
            chunk.batches(
                batch_sampler.epoch_order(seed, epoch, count, shuffle)
            )
            for seed in seeds
        ]


class InMemory(_Epochs):
    """Training batches of examples that all lie on the device.

    Args:
        split: The training examples.
        batching: How they are divided into batches.
    """

    def __init__(self, split: Split, batching: Batching) -> None:
        super().__init__(split, batching)
        self._examples = examples_of(split)

    def buffers(self, seeds: Sequence[int], step: int) -> Iterator[Buffer]:
        """Yields buffers, one epoch each, without end.

        Args:
            seeds: Seed of the order of each network, >= 0.
            step: The training step to continue from, >= 0.
        """
        for epoch, chunk in self._chunks(self._full_batches, step):
            first = epoch * self.steps_per_epoch + chunk.step
            orders = self._orders(seeds, epoch, chunk)
            yield Buffer(self._examples, self._split, first, orders)


class Streaming(_Epochs):
    """Training batches that are copied to the device while others train.

    Batches are the same as those of `InMemory`: each epoch is shuffled over
    all examples.

    Args:
        split: The training examples, such as a `np.memmap`.
        batching: How they are divided into batches.
    """

    def __init__(self, split: Split, batching: Batching) -> None:
        super().__init__(split, batching)
        batch_bytes = batching.size * Split(split.rows(slice(0, 1)).x).nbytes
        self._steps = max(1, WINDOW // batch_bytes)

    def buffers(self, seeds: Sequence[int], step: int) -> Iterator[Buffer]:
        """Yields buffers of parts of epochs, without end.

        Args:
            seeds: Seed of the order of each network, >= 0.
            step: The training step to continue from, >= 0.
        """
        chunks = self._chunks(self._steps, step)
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            upcoming = thread.submit(self._buffer, seeds, *next(chunks))
            while True:
                buffer = upcoming.result()
                upcoming = thread.submit(self._buffer, seeds, *next(chunks))
                yield buffer

    def _buffer(
        self, seeds: Sequence[int], epoch: int, chunk: _Chunk
    ) -> Buffer:
        """Returns a buffer that holds only the examples of its batches."""
        original = self._orders(seeds, epoch, chunk)
        flat = np.concatenate([each.ravel() for each in original])
        part = self._split.rows(flat)
        rows = np.arange(len(flat), dtype=np.int32)
        orders = rows.reshape(len(seeds), *original[0].shape)
        return Buffer(
            examples_of(part),
            part,
            epoch * self.steps_per_epoch + chunk.step,
            list(orders),
        )


def evaluation_batches(split: Split, size: int) -> Iterable[Batch]:
    """Returns the batches of a split; the last one may be smaller.

    Args:
        split: The examples.
        size: Examples per batch, >= 1.
    """
    batches = _Batches(split, min(size, len(split)))
    return batches if streams(split) else list(batches)


def even_size(examples: int) -> int:
    """Returns the batch size that evaluates a number of examples fastest.

    At most `EVALUATION_BATCH`, and if possible a divisor of `examples`: a
    smaller last batch would need another compiled program.

    Args:
        examples: Number of examples, >= 1.
    """
    fewest = -(-examples // EVALUATION_BATCH)
    for count in range(fewest, 2 * fewest + 1):
        if examples % count == 0:
            return examples // count
    return min(examples, EVALUATION_BATCH)


@dataclasses.dataclass(frozen=True)
class _Batches:
    """Batches that are copied to the device in every iteration."""

    split: Split
    size: int

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.split), self.size):
            part = self.split.rows(slice(start, start + self.size))
            yield Batch(examples_of(part), part)
