"""This module knows how a `tf.data.Dataset` is read.

Once, into a file without a name: the system keeps it in memory as far as there
is room, and it is gone with the process. So every network sees the same
examples, a killed run can go on, and what is larger than memory still trains.
"""

import tempfile
from typing import IO, Any

import numpy as np
import tensorflow as tf


def read(name: str, dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples of a data set, floats as float32.

    Args:
        name: What an error calls it.
        dataset: Of batches `(x, y)`, finite.

    Returns:
        Inputs and targets, `[examples, ...]` each, not in memory for good.

    Raises:
        ValueError: It is endless, yields anything but batches of examples of
            one shape, or breaks off; the message says where.
    """
    _require_pairs(name, dataset)
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"{name} never ends: leave out repeat(), for networks train as "
            "long as `length` says."
        )
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as other:
        columns = _Column(one), _Column(other)
        _copy(name, dataset, columns)
        x, y = (column.array() for column in columns)
    return x, y


def _copy(
    name: str,
    dataset: tf.data.Dataset,
    columns: "tuple[_Column, _Column]",
) -> None:
    count = 0
    try:
        for batch in dataset.as_numpy_iterator():
            for what, column, part in zip("xy", columns, batch, strict=True):
                column.append(part, f"{what} of batch {count} of {name}")
            if len(batch[0]) != len(batch[1]):
                raise ValueError(
                    f"Batch {count} of {name} holds {len(batch[0])} inputs "
                    f"but {len(batch[1])} targets."
                )
            count += 1
    except tf.errors.OpError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} broke off after {count} batches: {reason}"
        ) from error
    if count == 0:
        raise ValueError(f"{name} holds no examples.")


def batch_size(x: Any) -> int:
    """Returns a batch's examples: a `tf.data.Dataset`'s own, else 60.

    Frankle & Carbin 2019 take 60 for all but the deep networks.
    """
    if not isinstance(x, tf.data.Dataset):
        return 60
    return next((len(inputs) for inputs, _ in x.take(1)), 60)


def _require_pairs(name: str, dataset: tf.data.Dataset) -> None:
    spec: Any = dataset.element_spec
    if not (
        isinstance(spec, tuple)
        and len(spec) == 2
        and all(isinstance(part, tf.TensorSpec) for part in spec)
    ):
        raise ValueError(f"{name} must yield pairs (x, y); it yields {spec}.")
    for what, part in zip("xy", spec, strict=True):
        if part.shape.rank == 0:
            raise ValueError(
                f"{name} yields single examples, for its {what} have no "
                "dimensions. Call batch(...) on it."
            )


class _Column:
    """Rows of one shape, written one after the other."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._shape: tuple[int, ...] | None = None
        self._type = np.dtype(np.float32)
        self._rows = 0

    def append(self, part: np.ndarray, name: str) -> None:
        if self._shape is None:
            self._shape = part.shape[1:]
            if part.dtype.kind != "f":
                self._type = part.dtype
        if part.shape[1:] != self._shape:
            raise ValueError(
                f"The {name} have shape {part.shape[1:]} an example; those "
                f"before have {self._shape}."
            )
        with np.errstate(over="ignore"):  # to inf, which is refused by name
            part = np.ascontiguousarray(part, self._type)
        self._file.write(part.data)
        self._rows += len(part)

    def array(self) -> np.ndarray:
        self._file.flush()
        shape = (self._rows, *(self._shape or ()))
        return np.memmap(self._file, self._type, mode="r", shape=shape)
