"""Reading a Keras model as a chain of `Dense` layers."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.core.errors import UserError

Arrays = Mapping[str, np.ndarray]

_ACTIVATIONS = (keras.layers.Activation, keras.layers.ReLU)
_UNSUPPORTED_OPTIONS = (
    "kernel_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "bias_constraint",
)


class UnsupportedError(UserError):
    """The network cannot train on its survivors only; says why in one line."""


@dataclasses.dataclass(frozen=True)
class Dense:
    """A dense layer of a chain.

    Attributes:
        kernel: Path of its kernel.
        bias: Path of its biases, or None.
        shape: Shape of its kernel, `(inputs, units)`.
        relu: Whether ReLU is applied to its outputs.
    """

    kernel: str
    bias: str | None
    shape: tuple[int, int]
    relu: bool


def read(model: keras.Model) -> tuple[Dense, ...]:
    """Returns the dense layers of a model, from the inputs to the logits.

    Args:
        model: A built Keras model.

    Raises:
        UnsupportedError: The model is not a chain of dense layers.
    """
    paths = {
        id(v): path for path, v in masking.variables_by_path(model).items()
    }
    dense: list[Dense] = []
    layers = list(_layers(model))
    shape = tuple(model.inputs[0].shape[1:])
    for layer in layers:
        if layer.dtype_policy.name != "float32":
            raise UnsupportedError(
                f"layer {layer.name!r} computes in {layer.dtype_policy.name}, "
                "not in float32"
            )
        if type(layer) is keras.layers.Dense:
            _require_plain(layer, shape)
            dense.append(_dense(layer, paths))
        elif type(layer) in _ACTIVATIONS:
            if _is_relu(layer) and not dense:
                raise UnsupportedError(
                    f"layer {layer.name!r} applies ReLU to the inputs"
                )
            if _is_relu(layer):
                dense[-1] = dataclasses.replace(dense[-1], relu=True)
        elif not _only_reshapes(layer):
            raise UnsupportedError(
                f"layer {layer.name!r} is a {type(layer).__qualname__}"
            )
        shape = tuple(layer.compute_output_shape((None, *shape))[1:])
    if not dense:
        raise UnsupportedError("it has no Dense layer")
    if shape != (dense[-1].shape[1],):
        raise UnsupportedError(f"its outputs have shape {shape}")
    return tuple(dense)


def require_masks(dense: Sequence[Dense], masks: Arrays) -> None:
    """Raises unless every mask belongs to the kernel of a dense layer.

    Args:
        dense: The layers.
        masks: Path to mask.

    Raises:
        UnsupportedError: A path, shape or dtype does not fit.
    """
    shapes = {layer.kernel: layer.shape for layer in dense}
    for path, mask in masks.items():
        if path not in shapes:
            raise UnsupportedError(
                f"{path!r} is not the kernel of a dense layer"
            )
        if mask.shape != shapes[path] or mask.dtype != bool:
            raise UnsupportedError(
                f"the mask of {path!r} is {mask.dtype} {mask.shape}, not bool "
                f"{shapes[path]}"
            )


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Returns the layers of a chain, in order."""
    if not type(model).__module__.startswith("keras."):
        raise UnsupportedError(
            f"{type(model).__qualname__} is a subclassed model, neither "
            "Sequential nor functional"
        )
    if not model.built or not getattr(model, "inputs", None):
        raise UnsupportedError(f"model {model.name!r} is not built")
    layers = [
        layer
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    if isinstance(model, keras.Sequential):
        return iter(layers)
    ends, tensor = [*model.inputs, *model.outputs], model.inputs[0]
    for layer in layers:
        if layer.input is not tensor:
            break
        tensor = layer.output
    if len(ends) != 2 or tensor is not ends[1]:
        raise UnsupportedError(f"model {model.name!r} is not a chain of layers")
    return iter(layers)


def _require_plain(
    layer: keras.layers.Dense, shape: tuple[int | None, ...]
) -> None:
    """Raises unless the layer is `activation(inputs @ kernel + bias)`."""
    for option in _UNSUPPORTED_OPTIONS:
        if getattr(layer, option) is not None:
            raise UnsupportedError(f"layer {layer.name!r} has a {option}")
    _is_relu(layer)
    if len(layer.trainable_variables) != 1 + layer.use_bias or len(
        layer.variables
    ) != len(layer.trainable_variables):
        raise UnsupportedError(
            f"layer {layer.name!r} is frozen, or has more than its kernel and "
            "its biases"
        )
    if shape != (layer.kernel.shape[0],):
        raise UnsupportedError(
            f"layer {layer.name!r} takes inputs of shape {shape}; flatten them"
        )


def _dense(layer: keras.layers.Dense, paths: dict[int, str]) -> Dense:
    kernel, *bias = layer.variables
    return Dense(
        paths[id(kernel)],
        paths[id(bias[0])] if bias else None,
        tuple(kernel.shape),
        _is_relu(layer),
    )


def _is_relu(layer: Any) -> bool:
    """Returns whether the activation is ReLU (True) or linear (False)."""
    if isinstance(layer, keras.layers.ReLU):
        if (layer.max_value, layer.negative_slope, layer.threshold) != (
            None,
            0,
            0,
        ):
            raise UnsupportedError(f"layer {layer.name!r} is not a plain ReLU")
        return True
    activation = layer.activation
    if activation not in (keras.activations.relu, keras.activations.linear):
        name = getattr(activation, "__name__", type(activation).__name__)
        raise UnsupportedError(f"layer {layer.name!r} has activation {name!r}")
    return activation is keras.activations.relu


def _only_reshapes(layer: keras.layers.Layer) -> bool:
    """Returns whether the layer only reshapes its inputs."""
    if type(layer) is keras.layers.Flatten:
        return layer.data_format == "channels_last"
    return type(layer) is keras.layers.Reshape
