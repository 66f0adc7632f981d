"""Data sets: training, validation and test examples, checked at the door."""

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

_ROWS = 4_096  # looked at in one go: what is checked may not fit into memory


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples, their targets and their weights.

    Each is an array `[examples, ...]`, or arrays in lists, tuples and
    dictionaries, nested as the model takes them.

    Attributes:
        x: Inputs: numbers, or text as an object array of `str`.
        y: Targets: int32 labels, or floats. None: the model needs none.
        sample_weight: Weight of each example in the loss, as
            `keras.Model.fit` takes it. None: all weigh 1.
    """

    x: Nested
    y: Nested = None
    sample_weight: Nested = None

    def __len__(self) -> int:
        return len(nested.arrays_of(self.x)[0])

    @property
    def parts(self) -> tuple[Nested, Nested, Nested]:
        """Inputs, targets and weights."""
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
        """SHA-256 over all examples, as they are before augmentation.

        Equal data, equal digest.
        """
        hasher = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            if split is None:
                continue
            for what, array in nested.named_arrays(split.parts):
                if what not in ("[0]", "[1]"):  # nested, or sample weights
                    hasher.update(what.encode())
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
    """Returns a data set of what `keras.Model.fit` takes.

    Streams of batches (a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
    generator, a PyTorch `DataLoader`) are read once, and need not fit into
    memory: see `data.stream`. What they do at random happens that once;
    augmentation that shall differ from epoch to epoch is `Dataset.augment`.

    Args:
        x: Training inputs: an array `[examples, ...]` (NumPy, a `np.memmap`
            for one, pandas, TensorFlow, a list of numbers), several in a
            list, tuple or dictionary, or a stream of batches `x`, `(x, y)` or
            `(x, y, sample_weight)`. Floats become `keras.backend.floatx()`.
        y: Training targets, nested as the model's outputs are; None if `x` is
            a stream. Integers become int32.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a stream, to find
            the early-stop step on.
        test_data: The same, to report on.
        sample_weight: Weights of training examples, float `[examples]`, or
            one such array for each output.
        class_weight: Class to weight of its training examples; 1 for classes
            that it does not name.
        validation_split: Fraction of the training examples, taken from their
            end, that is validation data instead, in [0, 1).
        steps_per_epoch: How many batches of a stream make an epoch. None: all
            there are.
        validation_steps: How many batches of the validation stream to read.

    Raises:
        ValueError: Lengths or shapes differ, a split is empty, or inputs hold
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
                "`steps_per_epoch` says how much of a stream of batches to "
                "read, and `x` is no stream. For a number of steps, say "
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
    for what, given, steps in (
        ("validation_data", validation_data, validation_steps),
        ("test_data", test_data, None),
    ):
        if given is not None:
            splits[what] = split = _held_out(what, given, steps)
            _require_alike(what, split, train)
    return Dataset(
        train,
        splits.get("validation_data"),
        splits.get("test_data"),
        classes=_classes([train, *splits.values()]),
        batch_size=batch_size,
    )


def _require_no_arrays(y: Any, weights: Any, validation_split: float) -> None:
    for name, given in (("y", y), ("sample_weight", weights)):
        if given is not None:
            raise UserError(
                f"`x` is a stream of batches: leave out `{name}`, and let the "
                "stream yield (x, y, sample_weight)."
            )
    if validation_split:
        raise UserError(
            "`validation_split` needs arrays, and `x` is a stream of batches: "
            "give `validation_data`, for one x.take(n) beside x.skip(n)."
        )


def _held_out(name: str, given: Any, steps: int | None) -> Split:
    if stream.is_stream(given):
        return _checked(name, *stream.read(name, given, steps)[0])
    if steps is not None:
        raise UserError(
            f"`validation_steps` needs a stream of batches, and {name} is "
            "none: give as many examples as shall count."
        )
    if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
        raise UserError(
            f"{name} must be (x, y), (x, y, sample_weight) or a stream such as "
            f"a tf.data.Dataset; got {type(given).__qualname__}."
        )
    names = ("x", "y", "sample_weight")
    parts = [
        nested.from_user(f"{what} of {name}", part)
        for what, part in zip(names, given, strict=False)
    ]
    return _checked(name, *parts)


def _checked(name: str, x: Nested, y: Nested, weights: Nested = None) -> Split:
    """Returns a split of arrays that fit each other."""
    y = nested.map_arrays(lambda array: _target(name, array), y)
    split = Split(x, y, weights)
    found = [
        pair
        for what, part in zip(
            ("x", "y", "sample_weight"), split.parts, strict=True
        )
        for pair in nested.named_arrays(part, what)
    ]
    if not nested.arrays_of(x) or any(not a.ndim for _, a in found):
        raise UserError(f"{name} holds no examples.")
    if len({len(array) for _, array in found}) > 1:
        told = ", ".join(f"{len(array):,} in {what}" for what, array in found)
        raise UserError(
            f"{name} must hold as many inputs as targets and weights; got "
            f"{told}."
        )
    if not len(split):
        raise UserError(f"{name} holds no examples.")
    for what, array in found:
        bad = sum(_not_finite(rows) for rows in _slices(array))
        if bad:
            raise UserError(
                f"{what} of {name} holds {bad} nan or infinite values. Clean "
                "them first."
            )
    return split


def _target(name: str, array: np.ndarray) -> np.ndarray:
    """Returns targets as they are stored: labels as int32."""
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
    """Returns training and validation examples, split where Keras does."""
    if not 0 < fraction < 1:
        raise UserError(
            f"`validation_split` must be in [0, 1); got {fraction!r}."
        )
    at = math.floor(len(split) * (1.0 - fraction))
    if not 0 < at < len(split):
        raise UserError(
            f"`validation_split` of {fraction!r} leaves {at} of {len(split)} "
            "examples to train on. Give more examples, or `validation_data`."
        )
    return split.rows(slice(None, at)), split.rows(slice(at, None))


def _class_weighted(split: Split, weights: Mapping[int, float]) -> Split:
    """Returns a split with the weights of its examples' classes."""
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
            "`class_weight` needs a class an example; y has shape "
            f"{split.y.shape}. Give `sample_weight` of shape {labels.shape}."
        )
    known, places = np.unique(
        np.round(labels).astype(np.int64), return_inverse=True
    )
    each = np.array(
        [weights.get(int(label), 1.0) for label in known],
        keras.backend.floatx(),
    )
    return dataclasses.replace(split, sample_weight=each[places])


def _require_alike(name: str, split: Split, train: Split) -> None:
    """Raises unless a split is nested as the training data are."""
    for what in ("x", "y"):
        ours, theirs = (getattr(s, what) for s in (split, train))
        if nested.nesting(ours) != nested.nesting(theirs):
            raise UserError(
                f"{what} of {name} is nested as {nested.nesting(ours)}; that "
                f"of the training data as {nested.nesting(theirs)}."
            )
        pairs = zip(
            nested.named_arrays(ours, what),
            nested.named_arrays(theirs, what),
            strict=True,
        )
        for (place, one), (_, other) in pairs:
            if not _fits(one, other, kinds=what == "y"):
                raise UserError(
                    f"{place} of {name} has shape {one.shape[1:]} an example, "
                    f"of {_kind(one)}; that of the training data "
                    f"{other.shape[1:]}, of {_kind(other)}."
                )


def _fits(one: np.ndarray, other: np.ndarray, kinds: bool) -> bool:
    # Lengths of sequences may differ; the model says whether they fit it.
    if one.ndim != other.ndim:
        return False
    return not kinds or _kind(one) == _kind(other)


def _kind(array: np.ndarray) -> str:
    if array.dtype == object:
        return "text"
    return "integers" if array.dtype.kind in "iub" else "floats"


def _classes(splits: list[Split]) -> int | None:
    """Returns how many classes labels count; None if targets are no labels."""
    labels = [split.y for split in splits]
    if not all(
        isinstance(y, np.ndarray) and y.dtype == np.int32 for y in labels
    ):
        return None
    if any(y.shape[1:] not in ((), (1,)) or y.min() < 0 for y in labels):
        return None
    return 1 + max(int(y.max()) for y in labels)
