"""Export to a SavedModel that stores only surviving weights.

It stores the surviving values of a kernel, and the gaps between them in the
code of `mask_codec`. When the file is loaded, TensorFlow operations write the
dense kernel once; after that it computes like any dense model. That was the
fastest on CPUs: `benchmarks/export.py` has the numbers.
"""

import hashlib
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.storage import mask_codec
from tf_lottery.export import (
    atomic_output,
    conversion,
    serving,
    verification,
)
from tf_lottery.export.exported_model import ExportedModel, TicketOrModel

_BYTE = np.arange(8, dtype="uint8")[::-1]


def sparse_saved_model(
    source: TicketOrModel,
    path: str | os.PathLike[str],
    rewound: bool = False,
    dtype: str = "float32",
    x: Any = None,
) -> pathlib.Path:
    """Writes a SavedModel whose weights take few more bits than their entropy.

    It is loaded and served like the file of `saved_model`, without tf_lottery,
    and returns the same outputs. It is smaller only on disk: once loaded, it
    has dense kernels, and no call is faster. The file is loaded and compared
    with the Keras model; if they differ, `path` is not changed.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The directory to write; an older SavedModel is replaced.
        rewound: Whether to export the weights that a ticket restarts from,
            mask ⊙ θk, instead of the trained ones.
        dtype: The dtype of stored kernel values: `"float32"`, exact;
            `"float16"`, rounded; `"int8"`, rounded to 1/127 of the largest
            value of the unit. The model computes in its own dtype.
        x: Examples to compare on, in the structure of the model's inputs;
            None for random ones.

    Returns:
        The directory.

    Raises:
        UserError: The ticket has no trained weights, or `path` is no
            SavedModel, or the file returns other outputs than the model.
    """
    exported = ExportedModel.of(source, rewound, x)
    advice = conversion.advice(exported, "saved_model", "keras")
    with atomic_output.replacing(path, serving.MARKER) as folder:
        with conversion.report_errors(
            exported.original, "a SavedModel", advice
        ):
            _write(exported, folder, dtype)
        verification.require_same_outputs(
            exported, "saved_model", folder, dtype, advice=advice
        )
    return pathlib.Path(path)


def _write(exported: ExportedModel, folder: pathlib.Path, dtype: str) -> None:
    model = exported.model
    unpack = _unpacker(dtype)
    variables = [k.variable for k in masking.kernels(model).values()]
    packed = {id(v): _Packed(v, dtype, unpack) for v in variables}

    def call(inputs: Any) -> Any:
        kernels = [(k, packed[id(k)].read()) for k in variables]
        with keras.StatelessScope(kernels) as scope:
            outputs = model(inputs, training=False)
        # State of stateful layers, for the next call.
        for variable in _state(model):
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)
        return outputs

    codes = [part for p in packed.values() for part in p.parts]
    serving.save(exported, folder, call, [*packed.values(), *codes])


def _state(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables that inference may change."""
    # States of recurrent layers are in no layer's variables.
    layers = model._flatten_layers()
    states = [getattr(layer, "states", None) or [] for layer in layers]
    return [*model.non_trainable_variables, *keras.tree.flatten(states)]


class _Packed(tf.saved_model.experimental.TrackableResource):
    """A kernel that is stored packed, and unpacked when it is loaded."""

    def __init__(
        self, kernel: keras.Variable, dtype: str, unpack: Callable[..., Any]
    ) -> None:
        super().__init__()
        dense = kernel.numpy()
        mask = dense != 0
        width, codes = mask_codec.encode(mask)
        values, scale = _stored(dense, mask, dtype)
        self.shape, self.dtype, self.unpack = dense.shape, dense.dtype, unpack
        arrays = (np.int32(width), codes, values, scale)
        self.parts = [tf.Variable(a, trainable=False) for a in arrays]
        # Resources with equal names are shared: the name is a digest.
        content = b"".join(a.tobytes() for a in arrays)
        self.name = hashlib.sha256(
            content + f"{self.shape}{values.dtype}{self.dtype}".encode()
        ).hexdigest()

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(
            dtype=self.dtype, shape=self.shape, shared_name=self.name
        )

    def _initialize(self) -> None:
        width, codes, values, scale = self.parts
        dense = self.unpack(width, codes, values, self.shape)
        dense = tf.cast(tf.ensure_shape(dense, self.shape), self.dtype)
        tf.raw_ops.AssignVariableOp(
            resource=self.resource_handle, value=dense * scale
        )

    def read(self) -> tf.Tensor:
        """Returns the dense kernel."""
        return tf.raw_ops.ReadVariableOp(
            resource=self.resource_handle, dtype=self.dtype
        )


def _unpacker(dtype: str) -> Callable[..., Any]:
    """Returns a function that unpacks kernels of any shape."""
    spec = [
        tf.TensorSpec([], "int32"),
        tf.TensorSpec([None], "uint8"),
        tf.TensorSpec([None], dtype),
        tf.TensorSpec([None], "int32"),
    ]

    @tf.function(input_signature=spec, autograph=False)
    def unpack(
        width: tf.Tensor, codes: tf.Tensor, values: tf.Tensor, shape: tf.Tensor
    ) -> tf.Tensor:
        # The same operations as `mask_codec.decode`.
        count = 8 * tf.size(codes) // width
        bits = tf.bitwise.right_shift(codes[:, None], _BYTE) & 1
        bits = tf.cast(tf.reshape(bits, [-1])[: count * width], tf.int32)
        powers = tf.bitwise.left_shift(1, tf.range(width)[::-1])
        gap = tf.reduce_sum(tf.reshape(bits, [count, width]) * powers, axis=1)
        highest = tf.bitwise.left_shift(1, width) - 1
        ends = tf.cumsum(tf.where(gap == highest, highest, gap + 1))
        indices = tf.boolean_mask(ends, gap != highest) - 1
        size = tf.reduce_prod(shape)
        return tf.reshape(
            tf.scatter_nd(indices[:, None], values, size[None]), shape
        )

    return unpack


def _stored(
    dense: np.ndarray, mask: np.ndarray, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns surviving values in a dtype, and the factor to multiply by."""
    if dtype != "int8":
        return dense[mask].astype(dtype), np.ones((), dense.dtype)
    axes = tuple(range(dense.ndim - 1))
    largest = np.abs(dense).max(axis=axes, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(dense.dtype)
    return np.rint(dense / scale)[mask].astype("int8"), scale
