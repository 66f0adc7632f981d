"""Names, shapes and dtypes of a model's inputs and outputs."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.export import suppress_output


@dataclasses.dataclass(frozen=True)
class Signature:
    """The inputs and outputs of an exported file, by the model's names.

    A name is the key in a dict, or else the name of the input tensor, or of
    the layer that returns the output. Characters that TensorFlow does not
    allow in names become underscores.

    Attributes:
        inputs: Named `tf.TensorSpec` values, in the structure of the model's
            inputs.
        outputs: The names of the outputs, in the order of
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
        """The fixed number of examples in a call, or None for any number."""
        sizes = [spec.shape[0] for spec in self.specs if spec.shape.rank]
        return next((size for size in sizes if size is not None), None)

    def described(self) -> dict[str, Any]:
        """Returns the names and the batch size as JSON values."""
        names = keras.tree.map_structure(lambda spec: spec.name, self.inputs)
        return {
            "inputs": names,
            "outputs": list(self.outputs),
            "batch": self.batch,
        }


def signature_of(model: keras.Model, x: Any = None) -> Signature:
    """Returns the inputs and outputs of a model.

    Args:
        model: A built model.
        x: Examples, in the structure of the model's inputs. Needed for a
            subclassed model that was never called or whose inputs are not
            floats: Keras remembers the shapes of calls, but no dtypes.

    Raises:
        UserError: A subclassed model was never called, and `x` is None.
    """
    inputs = _inputs(model, x)
    leaves = _leaves(inputs)
    names = _unique(
        [
            (path, getattr(leaf, "name", None) or f"input_{i}")
            for i, (path, leaf) in enumerate(leaves)
        ]
    )
    specs = [
        tf.TensorSpec(leaf.shape, leaf.dtype, name)
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]
    inputs = keras.tree.pack_sequence_as(inputs, specs)
    return Signature(inputs, _outputs(model, inputs))


def _inputs(model: keras.Model, x: Any) -> Any:
    """Returns the inputs as tensors or specs; some have a name."""
    if isinstance(model, keras.Sequential):
        (tensor,) = model.inputs
        # Keras stores the batch size of the first call as part of the shape.
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
    shape = np.shape(array)
    example_dtype = tf.as_dtype(getattr(array, "dtype", dtype))
    if not example_dtype.is_floating:
        dtype = example_dtype
    return tf.TensorSpec((None, *shape[1:]) if shape else shape, dtype)


def _outputs(model: keras.Model, inputs: Any) -> tuple[str, ...]:
    if isinstance(model, keras.Sequential):
        return (_allowed(model.layers[-1].name),)
    if getattr(model, "inputs", None):
        leaves = _leaves(model.output)
        names = model.output_names
    else:
        leaves = _leaves(_traced(model, inputs))
        names = [f"output_{i}" for i in range(len(leaves))]
    paths = [path for path, _ in leaves]
    return tuple(_unique(list(zip(paths, names, strict=True))))


def _traced(model: keras.Model, inputs: Any) -> Any:
    """Returns the outputs of a subclassed model as symbolic tensors."""
    symbols = keras.tree.map_structure(
        lambda spec: keras.KerasTensor(tuple(spec.shape), spec.dtype.name),
        inputs,
    )
    try:
        return model.compute_output_spec(symbols)
    except Exception as error:  # The model's code may raise anything.
        raise UserError(
            f"Model {model.name!r} ({type(model).__qualname__}) cannot be "
            f"called on {symbols}: {suppress_output.error_summary(error)} Give "
            "examples that it can be called on: x=..."
        ) from error


def _leaves(structure: Any) -> list[tuple[tuple[Any, ...], Any]]:
    return keras.tree.flatten_with_path(structure)


def _unique(leaves: Sequence[tuple[tuple[Any, ...], str]]) -> list[str]:
    """Returns a unique name for each leaf, from its path and its name."""
    names = [
        path[-1] if path and isinstance(path[-1], str) else name
        for path, name in leaves
    ]
    joined = ["_".join(map(str, path)) or name for path, name in leaves]
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
    """Returns a valid name of a TensorFlow tensor."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"x{name}"
