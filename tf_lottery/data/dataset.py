"""This module knows what a data set is: three splits, checked at the door."""

import dataclasses
import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.data import stream
from tf_lottery.data.augmentation import Augmentation

_ROWS = 4_096  # looked at in one go: what is checked may not fit into memory


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples and their targets.

    Attributes:
        x: Inputs, `[examples, ...]`, float32 or integer.
        y: Targets, `[examples, ...]`: int32 class labels, or float32.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples to train, to validate and to test on.

    Validation data decides early stopping; test data decides nothing.

    Attributes:
        train: What is trained on.
        validation: Held-out examples, or None.
        test: Examples for the final figures, or None.
        classes: The number of classes, or None if targets are no labels.
        augment: How training images are varied, or None. It goes with the
            network, not with the data, so that no data set brings its own:
            `dataclasses.replace(dataset, augment=...)`.
    """

    train: Split
    validation: Split | None = None
    test: Split | None = None
    classes: int | None = None
    augment: Augmentation | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over all examples, as they are before augmentation.

        Equal data, equal digest.
        """
        hasher = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in (split.x, split.y) if split else ():
                hasher.update(f"{array.shape}{array.dtype}".encode())
                for i in range(0, len(array), _ROWS):
                    rows = array[i : i + _ROWS]
                    hasher.update(np.ascontiguousarray(rows).data)
        return hasher.hexdigest()


def from_arrays(
    x: Any, y: Any = None, validation_data: Any = None, test_data: Any = None
) -> Dataset:
    """Returns a data set of the user's arrays or `tf.data.Dataset` objects.

    A `tf.data.Dataset` is read once, and need not fit into memory: see
    `data.stream`. What it does at random happens that once; augmentation that
    shall differ from epoch to epoch is `Dataset.augment`.

    Args:
        x: Training inputs, `[examples, ...]`, a `np.memmap` for one. Floats
            become float32. Or a `tf.data.Dataset` of batches `(x, y)`.
        y: Training targets; None if `x` holds them. Integers become int32,
            floats float32; a column of integer labels becomes a vector.
        validation_data: `(x, y)` to find the early-stop step on, or a
            `tf.data.Dataset`.
        test_data: `(x, y)` to report on, or a `tf.data.Dataset`.

    Raises:
        ValueError: Lengths or shapes differ, a split is empty, or inputs hold
            nan or infinity; the message names the split.
    """
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise ValueError("`x` is a tf.data.Dataset: leave out `y`.")
        splits = {"x, y": _split("x", x)}
    else:
        splits = {"x, y": _split("x, y", (x, y))}
    train = splits["x, y"]
    for name, pair in (
        ("validation_data", validation_data),
        ("test_data", test_data),
    ):
        if pair is None:
            continue
        splits[name] = split = _split(name, pair)
        for what in ("x", "y"):
            form, expected = (
                _form(getattr(part, what)) for part in (split, train)
            )
            if form != expected and (what == "y" or form[0] != expected[0]):
                raise ValueError(
                    f"{what} of {name} have shape {form[0]} an example, of "
                    f"{form[1]}; those of {what} have {expected[0]}, of "
                    f"{expected[1]}."
                )
    return Dataset(
        train,
        splits.get("validation_data"),
        splits.get("test_data"),
        classes=_classes(splits),
    )


def _split(name: str, pair: Any) -> Split:
    if isinstance(pair, tf.data.Dataset):
        pair = stream.read(name, pair)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            f"{name} must be a pair (x, y) or a tf.data.Dataset; got "
            f"{type(pair).__qualname__}."
        )
    x, y = (_numbers(name, array) for array in pair)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"{name} holds no examples.")
    if y.ndim == 0 or len(x) != len(y):
        raise ValueError(
            f"{name} holds {len(x)} inputs but targets of shape {y.shape}; "
            "each input needs one target."
        )
    if y.dtype.kind != "f":
        limits = np.iinfo(np.int32)
        if y.max() > limits.max or y.min() < limits.min:
            raise ValueError(f"Labels of {name} must fit in 32 bits.")
        y = y.astype(np.int32, copy=False)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
    for what, array in (("inputs", x), ("targets", y)):
        bad = sum(
            int((~np.isfinite(array[i : i + _ROWS])).sum())
            for i in range(0, len(array), _ROWS)
        )
        if bad:
            raise ValueError(
                f"The {what} of {name} hold {bad} nan or infinite values. "
                "Clean them first."
            )
    return Split(x, y)


def _numbers(name: str, given: Any) -> np.ndarray:
    """Returns an array of numbers, floats as float32."""
    try:
        array = np.asarray(given, order="C")
    except ValueError as error:
        raise ValueError(f"{name} is no array of numbers: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must hold numbers; got an array of {array.dtype}."
        )
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):  # to inf, which is refused by name
        return array.astype(np.float32, copy=False)


def _form(array: np.ndarray) -> tuple[tuple[int, ...], str]:
    """Returns the shape of one example, and whether it is of floats."""
    kind = "floats" if array.dtype.kind == "f" else "integers"
    return array.shape[1:], kind


def _classes(splits: dict[str, Split]) -> int | None:
    if any(s.y.dtype.kind != "i" or s.y.ndim != 1 for s in splits.values()):
        return None
    for name, split in splits.items():
        if split.y.min() < 0:
            raise ValueError(
                f"Labels of {name} must be 0 or more; got {split.y.min()}."
            )
    return 1 + max(int(split.y.max()) for split in splits.values())
