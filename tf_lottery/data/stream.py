"""Reading streams of batches: `tf.data`, `PyDataset`, generators, loaders.

A stream is read once, into unnamed temporary files. The operating system caches
them in free memory and deletes them with the process. So every network sees the
same examples, a killed run can resume, and data may be larger than memory.
"""

import contextlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.data import nested

_ENDLESS = (
    "never ends: set the number of batches per epoch, `steps_per_epoch=`, or "
    "leave out repeat()."
)


def is_stream(x: Any) -> bool:
    """Returns whether `x` yields batches and is not made of arrays."""
    return isinstance(
        x, (tf.data.Dataset, keras.utils.PyDataset, Iterator)
    ) or _is_loader(x)


def _is_loader(x: Any) -> bool:
    """Returns whether `x` is a `torch.utils.data.DataLoader`."""
    return any(
        cls.__module__.startswith("torch.utils.data")
        and cls.__name__ == "DataLoader"
        for cls in type(x).__mro__
    )


def read(
    name: str, stream: Any, batches: int | None = None
) -> tuple[tuple[nested.Nested, nested.Nested, nested.Nested], int]:
    """Returns the examples of a stream, floats as `keras.backend.floatx()`.

    Args:
        name: Name of the stream, for messages.
        stream: Yields `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        batches: Number of batches to read. `None` reads all.

    Returns:
        Inputs, targets and sample weights with the nesting of a batch, every
        array `[examples, ...]`, targets and weights possibly None; and the
        number of examples in the first batch.

    Raises:
        UserError: The stream is endless, breaks off, or does not yield batches
            of examples of one shape; the message names the batch.
    """
    if batches is None and _is_endless(stream):
        raise UserError(f"{name} {_ENDLESS}")
    with contextlib.ExitStack() as stack:
        table = _Table(name, stack)
        for batch in itertools.islice(_batches(name, stream), batches):
            table.append(batch)
        return table.arrays(), table.batch_size


def _is_endless(stream: Any) -> bool:
    if isinstance(stream, tf.data.Dataset):
        return int(stream.cardinality()) == tf.data.INFINITE_CARDINALITY
    if isinstance(stream, keras.utils.PyDataset):
        return stream.num_batches is None
    return False


def _batches(name: str, stream: Any) -> Iterator[tuple[Any, Any, Any]]:
    count = 0
    source = _elements(name, stream)
    while True:
        try:
            element = next(source)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{name} broke off after {count} batches: {reason}"
            ) from error
        yield _unpacked(f"batch {count} of {name}", element)
        count += 1


def _elements(name: str, stream: Any) -> Iterator[Any]:
    if isinstance(stream, tf.data.Dataset):
        _require_batches(name, stream)
        return iter(stream.as_numpy_iterator())
    if isinstance(stream, keras.utils.PyDataset):
        numbers: Iterable[int] = itertools.count()
        if stream.num_batches is not None:
            numbers = range(stream.num_batches)
        return (stream[i] for i in numbers)
    return iter(stream)


def _require_batches(name: str, dataset: tf.data.Dataset) -> None:
    for spec in tf.nest.flatten(dataset.element_spec):
        if not isinstance(spec, tf.TensorSpec):
            raise UserError(
                f"{name} must yield dense tensors; it yields "
                f"{type(spec).__name__}. Call to_tensor() or "
                "tf.sparse.to_dense() in a map."
            )
        if spec.shape.rank == 0:
            raise UserError(
                f"{name} yields single examples: one of its tensors has no "
                "dimensions. Call batch(...) on it."
            )


def _unpacked(name: str, element: Any) -> tuple[Any, Any, Any]:
    """Returns inputs, targets and sample weights, in the order of Keras."""
    parts = element if isinstance(element, (tuple, list)) else (element,)
    if not 1 <= len(parts) <= 3:
        raise UserError(
            f"{name} must be x, (x, y) or (x, y, sample_weight); got "
            f"{len(parts)} parts."
        )
    x, y, weights = (*parts, None, None)[:3]
    return (
        nested.from_user(f"x of {name}", x),
        nested.from_user(f"y of {name}", y),
        nested.from_user(f"sample_weight of {name}", weights),
    )


class _Table:
    """Batches, written column by column.

    Args:
        name: Name of the stream, for messages.
        stack: Closes the files.
    """

    def __init__(self, name: str, stack: contextlib.ExitStack) -> None:
        self._name, self._stack = name, stack
        self._nesting: Any = None
        self._columns: list[_Column] = []
        self._batches = 0
        self.batch_size = 0

    def append(self, batch: tuple[Any, Any, Any]) -> None:
        """Adds a batch of inputs, targets and weights."""
        where = f"batch {self._batches} of {self._name}"
        named = [
            pair
            for what, part in zip(
                ("x", "y", "sample_weight"), batch, strict=True
            )
            for pair in nested.named_arrays(part, what)
        ]
        if not self._batches:
            self._nesting = nested.nesting(batch)
            self._columns = [_Column(self._stack) for _ in named]
        elif self._nesting != nested.nesting(batch):
            raise UserError(
                f"Batch 0 of {self._name} is nested as {self._nesting}, "
                f"{where} as {nested.nesting(batch)}."
            )
        for what, array in named:
            if not array.ndim:
                raise UserError(
                    f"{what} of {where} has no dimensions: batches need one, "
                    "of examples. Call batch(...) on it."
                )
        sizes = {what: len(array) for what, array in named}
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{n} for {what}" for what, n in sizes.items())
            raise UserError(
                f"{where.capitalize()} holds different numbers of examples: "
                f"{counts}."
            )
        try:
            for column, (what, array) in zip(self._columns, named, strict=True):
                column.append(array, f"{what} of {where}")
        except OSError as error:
            raise UserError(
                f"{self._name} did not fit on the disk: {error.strerror} at "
                f"batch {self._batches}. If it never ends, set the number of "
                "batches per epoch, `steps_per_epoch=`."
            ) from None
        self._batches += 1
        self.batch_size = self.batch_size or max(sizes.values(), default=0)

    def arrays(self) -> tuple[Any, Any, Any]:
        """Returns inputs, targets and weights of all batches."""
        if not self.batch_size:
            raise UserError(f"{self._name} holds no examples.")
        columns = iter(self._columns)
        return nested.map_arrays(lambda _: next(columns).array(), self._nesting)


class _Column:
    """Rows of one shape, written one after the other.

    Args:
        stack: Closes the file.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._file = stack.enter_context(
            tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
        )
        self._shape: tuple[int, ...] | None = None
        self._type = np.dtype(np.float32)
        self._text: list[np.ndarray] = []
        self._rows = 0

    def append(self, part: np.ndarray, name: str) -> None:
        """Adds rows; `name` is their name in messages."""
        if self._shape is None:
            self._shape, self._type = part.shape[1:], part.dtype
        if part.shape[1:] != self._shape:
            raise UserError(
                f"The {name} have shape {part.shape[1:]} per example; those "
                f"before have {self._shape}. Pad them to one shape."
            )
        if part.dtype.kind != self._type.kind:
            raise UserError(
                f"The {name} are of {part.dtype}; those before are of "
                f"{self._type}. Convert them to one type."
            )
        if self._type.kind == "O":
            self._text.append(part)
        else:
            with np.errstate(over="ignore"):  # To inf, which `dataset` reports.
                part = np.ascontiguousarray(part, self._type)
            self._file.write(part.data)
        self._rows += len(part)

    def array(self) -> np.ndarray:
        """Returns all rows, mapped from the file."""
        if self._type.kind == "O":
            return np.concatenate(self._text)
        self._file.flush()
        shape = (self._rows, *(self._shape or ()))
        return np.memmap(self._file, self._type, mode="r", shape=shape)
