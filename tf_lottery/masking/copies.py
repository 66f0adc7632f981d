"""Copies of models, with weights, masks and all other state."""

import inspect
import warnings

import keras
import numpy as np

from tf_lottery.core.errors import UserError, one_line
from tf_lottery.masking import conversion, layer_state, paths
from tf_lottery.masking.masked_layer import MaskedKernel, MaskedParts


def clone_model(model: keras.Model) -> keras.Model:
    """Returns a model of the same classes, layers, weights and masks.

    Sequential and functional models are rebuilt layer by layer, subclassed
    ones from their configuration.

    Args:
        model: A built model.

    Raises:
        UserError: It cannot be rebuilt; the message says what to do.
    """
    try:
        copy = _rebuilt(model)
        _copy_state(model, copy)
    except Exception as error:
        reason = one_line(error, 200)
        raise UserError(
            f"Model {model.name!r} ({type(model).__qualname__}) cannot be "
            f"copied from its configuration: {reason} Give it get_config and "
            "build, and its layers get_config; if you trust its lambdas, call "
            "keras.config.enable_unsafe_deserialization(). Or mask the model "
            "itself: mask_model(model, copy=False)."
        ) from None
    return copy


def fresh_copy(model: keras.Model) -> keras.Model | None:
    """Returns a copy with newly initialized weights.

    Args:
        model: A built model.

    Returns:
        The copy; None for a model that cannot be rebuilt.
    """
    try:
        copy = _rebuilt(model)
        fresh = [np.array(variable.numpy()) for variable in copy.variables]
        _copy_state(model, copy)
    except Exception:  # noqa: BLE001 - a user's code
        return None
    for variable, value in zip(copy.variables, fresh, strict=True):
        variable.assign(value)
    return copy


def _rebuilt(model: keras.Model) -> keras.Model:
    # Keras has no public name for its functional models.
    is_functional = hasattr(model, "operations")
    if is_functional or isinstance(model, keras.Sequential):
        copy = keras.models.clone_model(
            model, clone_function=_from_config, recursive=True
        )
        if type(copy) is type(model):  # else its class has its own get_config
            return copy
    return _from_config(model)


def _from_config(layer: keras.layers.Layer) -> keras.layers.Layer:
    if type(layer) is keras.layers.Lambda:
        return _lambda(layer)
    config = layer.get_config()
    if isinstance(layer, keras.Model):
        # Keras' default `get_config` adds arguments that a class may not take.
        arguments = inspect.signature(type(layer).__init__).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in arguments.values()):
            config = {k: v for k, v in config.items() if k in arguments}
    copy = type(layer).from_config(config)
    # Keras' SpatialDropout files the dtype of its variables, not its policy.
    is_layer = isinstance(layer, keras.layers.Layer)  # or an operation
    if is_layer and copy.dtype_policy != layer.dtype_policy:
        copy.dtype_policy = layer.dtype_policy
    if isinstance(layer, keras.Model) and not copy.built:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it cannot be built
            copy.build_from_config(layer.get_build_config())
        copy.built = True  # Keras does not set it if `build` is inherited
    return copy


def _lambda(layer: keras.layers.Layer) -> keras.layers.Layer:
    # Keras loads no code from a configuration by default.
    return keras.layers.Lambda(
        layer.function,
        layer._output_shape,
        layer.mask,
        layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )


def _copy_state(model: keras.Model, copy: keras.Model) -> None:
    if type(copy) is not type(model):
        raise UserError(f"Keras makes it a {type(copy).__qualname__}.")
    targets = paths.layers_by_path(copy)
    for path, source in paths.layers_by_path(model).items():
        # Configurations of subclassed models do not hold `trainable`.
        if path in targets and targets[path].trainable != source.trainable:
            targets[path].trainable = source.trainable
        if isinstance(source, MaskedKernel | MaskedParts):
            conversion.copy_masks(source, targets[path])
    layer_state.carry(model, copy)
    variables = paths.variables_by_path(model)
    for path, variable in paths.variables_by_path(copy).items():
        if path not in variables:
            raise UserError(f"{path!r} is new.")
        variable.assign(variables.pop(path))
    for path in variables:
        raise UserError(f"{path!r} is missing.")
    layer_state.derive(copy)
