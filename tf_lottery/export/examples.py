"""Examples to compare an exported file with its model on."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.export import signatures

_EXAMPLES = 4
_MAX_EXAMPLES = 32
_UNKNOWN_SIZE = 32
"""Size of an unknown dimension: enough for five poolings by two."""

_WORDS = np.array(["", "the", "lottery ticket", "hypothesis 2019"])


def few(signature: signatures.Signature, x: Any) -> list[np.ndarray]:
    """Returns up to 32 of the caller's examples, one array for each input.

    Args:
        signature: The signature of the model.
        x: Examples in the structure of the model's inputs, or by input name.
    """
    arrays = flatten(signature, x)
    return [_of_size(array, signature.batch) for array in arrays]


def flatten(signature: signatures.Signature, x: Any) -> list[np.ndarray]:
    """Returns the caller's examples, one array for each input.

    Args:
        signature: The signature of the model.
        x: Examples in the structure of the model's inputs, or by input name.

    Raises:
        UserError: Their structure or shapes differ from the model's inputs.
    """
    specs = signature.specs
    if isinstance(x, dict) and {s.name for s in specs} == set(x):
        leaves = [x[spec.name] for spec in specs]
    else:
        leaves = keras.tree.flatten(x)
    shapes = [np.shape(leaf) for leaf in leaves]
    is_valid = len(leaves) == len(specs) and all(
        len(shape) == spec.shape.rank
        for shape, spec in zip(shapes, specs, strict=True)
    )
    if not is_valid:
        needed = ", ".join(f"{s.name} {tuple(s.shape)}" for s in specs)
        raise UserError(
            f"`x` must hold examples as the model takes them, {needed}; got "
            f"arrays of shapes {shapes}."
        )
    return [
        _array(leaf, spec.dtype)
        for leaf, spec in zip(leaves, specs, strict=True)
    ]


def random(
    model: keras.Model, signature: signatures.Signature
) -> list[np.ndarray]:
    """Returns a few random examples, the same at each call.

    Integers are below the size of the model's smallest lookup table; 0 or 1
    if it has no known table.

    Args:
        model: The model.
        signature: The signature of the model.
    """
    generator = np.random.default_rng(0)
    sizes = [
        size
        for layer in model._flatten_layers()
        for size in [_table_size(layer)]
        if size is not None
    ]
    return [
        _random(
            generator, spec, signature.batch or _EXAMPLES, min(sizes, default=0)
        )
        for spec in signature.specs
    ]


def _table_size(layer: keras.layers.Layer) -> int | None:
    if isinstance(layer, keras.layers.Embedding):
        return layer.input_dim
    if isinstance(layer, keras.layers.CategoryEncoding):
        return layer.num_tokens
    return None


def _random(
    generator: np.random.Generator, spec: tf.TensorSpec, batch: int, size: int
) -> np.ndarray:
    first, *rest = spec.shape.as_list() or [None]
    shape = (batch, *(_UNKNOWN_SIZE if n is None else n for n in rest))
    if not spec.shape.rank:
        shape = ()
    dtype = spec.dtype
    if dtype == tf.string:
        return _array(generator.choice(_WORDS, shape), dtype)
    if dtype == tf.bool:
        return generator.random(shape) < 0.5
    if size or dtype.is_integer:
        unknown = 256 if dtype == tf.uint8 else 2
        return _array(generator.integers(0, size or unknown, shape), dtype)
    return _array(generator.normal(size=shape), dtype)


def _array(leaf: Any, dtype: tf.DType) -> np.ndarray:
    if dtype == tf.string:
        return np.array(leaf).astype("S")
    return np.asarray(leaf).astype(dtype.as_numpy_dtype)


def _of_size(array: np.ndarray, batch: int | None) -> np.ndarray:
    if batch is None or not array.ndim:
        return array[:_MAX_EXAMPLES] if array.ndim else array
    return np.resize(array, (batch, *array.shape[1:]))
