"""The names, shapes and dtypes of what a model takes and returns."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.export import muting


@dataclasses.dataclass(frozen=True)
class Signature:
    """What an exported file takes and returns, in the model's own names.

    A name is the key of a dict, or else the name of the input tensor, or of
    the layer that returns the output. A character that TensorFlow does not
    allow in names becomes `_`.

    Attributes:
        inputs: A `tf.TensorSpec` with a name for each, nested as the model
            takes its inputs.
        outputs: The names of what the model returns, in the order of
            `keras.tree.flatten`.
    """

    inputs: Any
    outputs: tuple[str, ...]

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """The inputs in the order of `keras.tree.flatten`."""
        return keras.tree.flatten(self.inputs)

    @property
    def batch(self) -> int | None:
        """How many examples each call must hold, or None for any number."""
        sizes = [spec.shape[0] for spec in self.specs if spec.shape.rank]
        return next((size for size in sizes if size is not None), None)

    def described(self) -> dict[str, Any]:
        """Returns what a process without TensorFlow needs, ready for JSON."""
        names = keras.tree.map_structure(lambda spec: spec.name, self.inputs)
        return {
            "inputs": names,
            "outputs": list(self.outputs),
            "batch": self.batch,
        }


def signature_of(model: keras.Model, x: Any = None) -> Signature:
    """Returns what a model takes and returns.

    Args:
        model: A built model.
        x: Examples, as the model takes them. Needed for a subclassed model
            that was never called, or that takes other numbers than floats:
            Keras remembers the shapes that it was called with, but no dtypes.

    Raises:
        ValueError: It is a subclassed model that has never been called, and
            `x` is None.
    """
    inputs = _inputs(model, x)
    found = [
        (path, getattr(leaf, "name", None) or f"input_{i}", leaf)
        for i, (path, leaf) in enumerate(_leaves(inputs))
    ]
    names = _unique([(path, name) for path, name, _ in found])
    specs = [
        tf.TensorSpec(leaf.shape, leaf.dtype, name)
        for name, (_, _, leaf) in zip(names, found, strict=True)
    ]
    inputs = keras.tree.pack_sequence_as(inputs, specs)
    return Signature(inputs, _outputs(model, inputs))


def _inputs(model: keras.Model, x: Any) -> Any:
    """Returns a structure of tensors that have shape, dtype and maybe name."""
    if isinstance(model, keras.Sequential):
        (tensor,) = model.inputs
        # Keras takes the batch of the first call for a part of the shape.
        size = tensor.shape[0] if _stateful(model) else None
        shape = (size, *tensor.shape[1:])
        return keras.KerasTensor(shape, tensor.dtype, name=tensor.name)
    if getattr(model, "inputs", None):
        return model.input
    if x is not None:
        return keras.tree.map_structure(_example_spec, x)
    shapes = (model.get_build_config() or {}).get("input_shape")
    if shapes is None:
        raise UserError(
            f"Model {model.name!r} ({type(model).__qualname__}) is subclassed "
            "and was never called, so its inputs are not known. Give some "
            "examples: x=..."
        )
    return keras.tree.map_shape_structure(
        lambda shape: tf.TensorSpec(
            (None, *shape[1:]) if shape else shape, keras.config.floatx()
        ),
        shapes,
    )


def _stateful(model: keras.Model) -> bool:
    return any(getattr(x, "stateful", False) for x in model._flatten_layers())


def _example_spec(array: Any) -> tf.TensorSpec:
    dtype = keras.config.floatx()
    shape, given = np.shape(array), getattr(array, "dtype", np.dtype(dtype))
    if not tf.as_dtype(given).is_floating:
        dtype = tf.as_dtype(given)
    return tf.TensorSpec((None, *shape[1:]) if shape else shape, dtype)


def _outputs(model: keras.Model, inputs: Any) -> tuple[str, ...]:
    if isinstance(model, keras.Sequential):
        return (_allowed(model.layers[-1].name),)
    if getattr(model, "inputs", None):
        leaves = _leaves(model.output)
        own = model.output_names
    else:
        leaves = _leaves(_traced(model, inputs))
        own = [f"output_{i}" for i in range(len(leaves))]
    paths = [path for path, _ in leaves]
    return tuple(_unique(list(zip(paths, own, strict=True))))


def _traced(model: keras.Model, inputs: Any) -> Any:
    """Returns what a subclassed model returns, as symbols."""
    symbols = keras.tree.map_structure(
        lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name),
        inputs,
    )
    try:
        return model.compute_output_spec(symbols)
    except Exception as error:  # whatever the model's own code raises
        raise UserError(
            f"Model {model.name!r} ({type(model).__qualname__}) cannot be "
            f"called on {symbols}: {muting.first_line(error)} Give examples "
            "that it can be called on: x=..."
        ) from error


def _leaves(structure: Any) -> list[tuple[tuple[Any, ...], Any]]:
    return keras.tree.flatten_with_path(structure)


def _unique(found: Sequence[tuple[tuple[Any, ...], str]]) -> list[str]:
    """Returns a name for each leaf, given its path and the model's name."""
    names = [
        path[-1] if path and isinstance(path[-1], str) else name
        for path, name in found
    ]
    joined = ["_".join(map(str, path)) or name for path, name in found]
    names = [
        long if names.count(name) > 1 and "_" in long else name
        for name, long in zip(names, joined, strict=True)
    ]
    unique: list[str] = []
    for name in map(_allowed, names):
        count, candidate = 0, name
        while candidate in unique:
            count += 1
            candidate = f"{name}_{count}"
        unique.append(candidate)
    return unique


def _allowed(name: str) -> str:
    """Returns a name that TensorFlow takes for a tensor."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"x{name}"
