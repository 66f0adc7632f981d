"""Data sets: training, validation and test examples, with checks."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.data import nested, stream
from tf_lottery.data.augmentation import Augmentation
from tf_lottery.data.nested import Nested

_ROWS = 4_096  # Rows checked at once; an array may not fit into memory.


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples, their targets and their weights.

    Each is an array `[examples, ...]`, or arrays in lists, tuples and
    dictionaries with the nesting of the model's inputs or outputs.

    Attributes:
        x: Inputs: numbers, or text as an object array of `str`.
        y: Targets: int32 labels, or floats. `None` for a model without targets.
        sample_weight: Weights of examples in the loss, float `[examples]`.
            `None` weights all by 1.
    """

    x: Nested
    y: Nested = None
    sample_weight: Nested = None

    def __len__(self) -> int:
        return len(nested.arrays_of(self.x)[0])

    @property
    def parts(self) -> tuple[Nested, Nested, Nested]:
        """The tuple of inputs, targets and sample weights."""
        return self.x, self.y, self.sample_weight

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in nested.arrays_of(self.parts))

    def rows(self, rows: Any) -> "Split":
        """Returns some of the examples.

        Args:
            rows: A slice, or indices of examples, int `[...]`.
        """
        return Split(*nested.map_arrays(lambda array: array[rows], self.parts))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Examples to train, validate and test on.

    Validation data decides early stopping; test data decides nothing.

    Attributes:
        train: Training examples.
        validation: Held-out examples, or None.
        test: Examples for the final metrics, or None.
        classes: The number of classes, or None if targets are not labels.
        augment: Augmentation of training images, or None. It belongs to the
            network, so data sets come without one:
            `dataclasses.replace(dataset, augment=...)`.
        batch_size: Examples in the first batch of the stream that the
            training data were read from; None for arrays.
    """

    train: Split
    validation: Split | None = None
    test: Split | None = None
    classes: int | None = None
    augment: Augmentation | None = None
    batch_size: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over all examples, before augmentation."""
        hasher = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            if split is None:
                continue
            for path, array in nested.named_arrays(split.parts):
                if path not in ("[0]", "[1]"):  # Nested, or sample weights.
                    hasher.update(path.encode())
                hasher.update(f"{array.shape}{array.dtype}".encode())
                for rows in _slices(array):
                    hasher.update(_bytes(rows))
        return hasher.hexdigest()


def from_arrays(
    x: Any,
    y: Any = None,
    validation_data: Any = None,
    test_data: Any = None,
    *,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    validation_split: float = 0.0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
) -> Dataset:
    """Returns a data set from the arguments of `keras.Model.fit`.

    Streams of batches (a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
    generator, a PyTorch `DataLoader`) are read once, and need not fit into
    memory. Random operations in a stream therefore happen once; use
    `Dataset.augment` for augmentation that differs between epochs.

    Args:
        x: Training inputs: an array `[examples, ...]` (NumPy, `np.memmap`,
            pandas, TensorFlow, or a list of numbers), arrays in a list, tuple
            or dictionary, or a stream of batches `x`, `(x, y)` or
            `(x, y, sample_weight)`. Floats become `keras.backend.floatx()`.
        y: Training targets, with the nesting of the model's outputs; None if
            `x` is a stream. Integers become int32.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a stream, for
            early stopping.
        test_data: The same, for the final metrics.
        sample_weight: Weights of training examples, float `[examples]`, or
            one such array for each output.
        class_weight: Weight of training examples by class; 1 for other classes.
        validation_split: Fraction of the training examples, taken from their
            end, to use as validation data, in [0, 1).
        steps_per_epoch: Number of batches of a stream per epoch. `None` reads
            all.
        validation_steps: Number of batches of the validation stream to read.
            `None` reads all.

    Raises:
        UserError: Lengths or shapes differ, a split is empty, or inputs hold
            nan or infinity; the message names the split and the array.
    """
    batch_size = None
    if stream.is_stream(x):
        _require_no_arrays(y, sample_weight, validation_split)
        parts, batch_size = stream.read("x", x, steps_per_epoch)
        name = "x"
    else:
        if steps_per_epoch is not None:
            raise UserError(
                "`steps_per_epoch` limits a stream of batches, and `x` is not "
                "a stream. To train for a number of steps, use "
                f"length='{steps_per_epoch}it'."
            )
        name = "x, y"
        parts = (
            nested.from_user("x", x),
            nested.from_user("y", y),
            nested.from_user("sample_weight", sample_weight),
        )
    train = _checked(name, *parts)
    splits: dict[str, Split] = {}
    if validation_split:
        if validation_data is not None:
            raise UserError(
                "Give `validation_data` or `validation_split`, not both."
            )
        train, splits["validation_data"] = _divided(train, validation_split)
    if class_weight is not None:
        train = _class_weighted(train, class_weight)
    for split_name, examples, steps in (
        ("validation_data", validation_data, validation_steps),
        ("test_data", test_data, None),
    ):
        if examples is not None:
            split = _held_out(split_name, examples, steps)
            _require_same_form(split_name, split, train)
            splits[split_name] = split
    return Dataset(
        train,
        splits.get("validation_data"),
        splits.get("test_data"),
        classes=_classes([train, *splits.values()]),
        batch_size=batch_size,
    )


def _require_no_arrays(y: Any, weights: Any, validation_split: float) -> None:
    for name, value in (("y", y), ("sample_weight", weights)):
        if value is not None:
            raise UserError(
                f"`x` is a stream of batches: leave out `{name}`, and let the "
                "stream yield (x, y, sample_weight)."
            )
    if validation_split:
        raise UserError(
            "`validation_split` needs arrays, and `x` is a stream of batches: "
            "give `validation_data`, such as x.take(n), and train on x.skip(n)."
        )


def _held_out(name: str, examples: Any, steps: int | None) -> Split:
    if stream.is_stream(examples):
        return _checked(name, *stream.read(name, examples, steps)[0])
    if steps is not None:
        raise UserError(
            f"`validation_steps` needs a stream of batches, and {name} is "
            "not a stream: pass only the examples to evaluate."
        )
    if not isinstance(examples, (tuple, list)) or len(examples) not in (2, 3):
        raise UserError(
            f"{name} must be (x, y), (x, y, sample_weight) or a stream such as "
            f"a tf.data.Dataset; got {type(examples).__qualname__}."
        )
    names = ("x", "y", "sample_weight")
    parts = [
        nested.from_user(f"{what} of {name}", part)
        for what, part in zip(names, examples, strict=False)
    ]
    return _checked(name, *parts)


def _checked(name: str, x: Nested, y: Nested, weights: Nested = None) -> Split:
    """Returns a split, or raises an error if arrays do not match."""
    y = nested.map_arrays(lambda array: _target(name, array), y)
    split = Split(x, y, weights)
    arrays = [
        pair
        for what, part in zip(
            ("x", "y", "sample_weight"), split.parts, strict=True
        )
        for pair in nested.named_arrays(part, what)
    ]
    if not nested.arrays_of(x) or any(not a.ndim for _, a in arrays):
        raise UserError(f"{name} holds no examples.")
    if len({len(array) for _, array in arrays}) > 1:
        counts = ", ".join(
            f"{len(array):,} in {path}" for path, array in arrays
        )
        raise UserError(
            f"{name} must hold as many inputs as targets and weights; got "
            f"{counts}."
        )
    if not len(split):
        raise UserError(f"{name} holds no examples.")
    for path, array in arrays:
        bad = sum(_not_finite(rows) for rows in _slices(array))
        if bad:
            raise UserError(
                f"{path} of {name} holds {bad} nan or infinite values. Clean "
                "them first."
            )
    return split


def _target(name: str, array: np.ndarray) -> np.ndarray:
    """Returns targets, with integers as int32."""
    if array.dtype.kind == "O":
        raise UserError(
            f"Targets of {name} must be numbers; got text. Number the classes: "
            "keras.layers.StringLookup(num_oov_indices=0) does."
        )
    if array.dtype.kind not in "iub":
        return array
    limits = np.iinfo(np.int32)
    if array.size and (array.max() > limits.max or array.min() < limits.min):
        raise UserError(f"Labels of {name} must fit in 32 bits.")
    return array.astype(np.int32, copy=False)


def _slices(array: np.ndarray) -> Iterator[np.ndarray]:
    for i in range(0, len(array), _ROWS):
        yield array[i : i + _ROWS]


def _bytes(rows: np.ndarray) -> Any:
    if rows.dtype == object:
        return "\0".join(rows.ravel()).encode()
    return np.ascontiguousarray(rows).data


def _not_finite(rows: np.ndarray) -> int:
    if rows.dtype == object:
        return 0
    return int((~np.isfinite(rows.astype(np.float32, copy=False))).sum())


def _divided(split: Split, fraction: float) -> tuple[Split, Split]:
    """Returns training and validation examples, split as by Keras."""
    if not 0 < fraction < 1:
        raise UserError(
            f"`validation_split` must be in [0, 1); got {fraction!r}."
        )
    count = math.floor(len(split) * (1.0 - fraction))
    if not 0 < count < len(split):
        raise UserError(
            f"`validation_split` of {fraction!r} leaves {count} of "
            f"{len(split)} examples to train on. Give more examples, or "
            "`validation_data`."
        )
    return split.rows(slice(None, count)), split.rows(slice(count, None))


def _class_weighted(split: Split, weights: Mapping[int, float]) -> Split:
    """Returns a split with each example weighted by its class."""
    if split.sample_weight is not None:
        raise UserError(
            "Give `class_weight` or `sample_weight`, not both: multiply them "
            "into `sample_weight`."
        )
    if not isinstance(weights, Mapping):
        raise UserError(
            "`class_weight` must map classes to weights, as {0: 1.0, 1: 5.0}; "
            f"got {type(weights).__qualname__}."
        )
    if not isinstance(split.y, np.ndarray):
        raise UserError(
            "`class_weight` needs one array of targets; y is nested as "
            f"{nested.nesting(split.y)}. Give `sample_weight`, one array for "
            "each output."
        )
    labels = split.y
    if labels.ndim > 1:
        single = labels.shape[-1] == 1
        labels = labels[..., 0] if single else labels.argmax(axis=-1)
    if labels.ndim > 1:
        raise UserError(
            "`class_weight` needs one class per example; y has shape "
            f"{split.y.shape}. Give `sample_weight` of shape {labels.shape}."
        )
    classes, indices = np.unique(
        np.round(labels).astype(np.int64), return_inverse=True
    )
    per_class = np.array(
        [weights.get(int(label), 1.0) for label in classes],
        keras.backend.floatx(),
    )
    return dataclasses.replace(split, sample_weight=per_class[indices])


def _require_same_form(name: str, split: Split, train: Split) -> None:
    """Raises an error if a split has other arrays than the training data."""
    for what in ("x", "y"):
        held_out, trained = (getattr(s, what) for s in (split, train))
        if nested.nesting(held_out) != nested.nesting(trained):
            raise UserError(
                f"{what} of {name} is nested as {nested.nesting(held_out)}; "
                f"that of the training data as {nested.nesting(trained)}."
            )
        pairs = zip(
            nested.named_arrays(held_out, what),
            nested.named_arrays(trained, what),
            strict=True,
        )
        for (path, array), (_, expected) in pairs:
            if not _fits(array, expected, kinds=what == "y"):
                raise UserError(
                    f"{path} of {name} has shape {array.shape[1:]} per "
                    f"example, of {_kind(array)}; that of the training data "
                    f"{expected.shape[1:]}, of {_kind(expected)}."
                )


def _fits(array: np.ndarray, expected: np.ndarray, kinds: bool) -> bool:
    # Lengths of sequences may differ; the model checks them.
    if array.ndim != expected.ndim:
        return False
    return not kinds or _kind(array) == _kind(expected)


def _kind(array: np.ndarray) -> str:
    if array.dtype == object:
        return "text"
    return "integers" if array.dtype.kind in "iub" else "floats"


def _classes(splits: list[Split]) -> int | None:
    """Returns the number of classes; None if targets are not labels."""
    labels = [split.y for split in splits]
    if not all(
        isinstance(y, np.ndarray) and y.dtype == np.int32 for y in labels
    ):
        return None
    if any(y.shape[1:] not in ((), (1,)) or y.min() < 0 for y in labels):
        return None
    return 1 + max(int(y.max()) for y in labels)
