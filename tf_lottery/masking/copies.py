"""Copies of models of any kind: weights, masks and all other state."""

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
        ValueError: It cannot be rebuilt; the message says what to do.
    """
    try:
        new = _rebuilt(model)
        _fill(new, model)
    except Exception as error:
        reason = one_line(error, 200)
        raise UserError(
            f"Model {model.name!r} ({type(model).__qualname__}) cannot be "
            f"copied from its configuration: {reason} Give it get_config and "
            "build, and its layers get_config; if you trust its lambdas, call "
            "keras.config.enable_unsafe_deserialization(). Or mask the model "
            "itself: mask_model(model, copy=False)."
        ) from None
    return new


def fresh_copy(model: keras.Model) -> keras.Model | None:
    """Returns a copy whose weights are those of a model just built.

    Args:
        model: A built model.

    Returns:
        The copy; None for a model that cannot be rebuilt.
    """
    try:
        new = _rebuilt(model)
        fresh = [np.array(variable.numpy()) for variable in new.variables]
        _fill(new, model)
    except Exception:  # noqa: BLE001 - a user's code
        return None
    for variable, value in zip(new.variables, fresh, strict=True):
        variable.assign(value)
    return new


def _rebuilt(model: keras.Model) -> keras.Model:
    new = _cloned(model) if _is_graph(model) else _again(model)
    if type(new) is not type(model):
        new = _again(model)  # a graph under a configuration of its own
    return new


def _cloned(model: keras.Model) -> keras.Model:
    return keras.models.clone_model(
        model, clone_function=_again, recursive=True
    )


def _is_graph(model: keras.Model) -> bool:
    # Keras has no public name for its functional models.
    return hasattr(model, "operations") or isinstance(model, keras.Sequential)


def _again(layer: keras.layers.Layer) -> keras.layers.Layer:
    if type(layer) is keras.layers.Lambda:
        return _lambda(layer)
    config = layer.get_config()
    if isinstance(layer, keras.Model):
        # Keras adds these to configurations that it makes by itself.
        taken = inspect.signature(type(layer).__init__).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            config = {k: v for k, v in config.items() if k in taken}
    new = type(layer).from_config(config)
    # Keras' SpatialDropout writes down its variables' type, not its policy.
    is_layer = isinstance(layer, keras.layers.Layer)  # or an operation
    if is_layer and new.dtype_policy != layer.dtype_policy:
        new.dtype_policy = layer.dtype_policy
    if isinstance(layer, keras.Model) and not new.built:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it cannot be built
            new.build_from_config(layer.get_build_config())
        new.built = True  # where `build` is not overridden, Keras forgets
    return new


def _lambda(layer: keras.layers.Layer) -> keras.layers.Layer:
    # Keras reads no code from a configuration; here is the function itself.
    return keras.layers.Lambda(
        layer.function,
        layer._output_shape,
        layer.mask,
        layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )


def _fill(new: keras.Model, model: keras.Model) -> None:
    if type(new) is not type(model):
        raise UserError(f"Keras makes it a {type(new).__qualname__}.")
    targets = paths.layers_by_path(new)
    for path, source in paths.layers_by_path(model).items():
        # Configurations of subclassed models do not say what is frozen.
        if path in targets and targets[path].trainable != source.trainable:
            targets[path].trainable = source.trainable
        if isinstance(source, MaskedKernel | MaskedParts):
            conversion.copy_masks(source, targets[path])
    layer_state.carry(model, new)
    variables = paths.variables_by_path(model)
    for path, variable in paths.variables_by_path(new).items():
        if path not in variables:
            raise UserError(f"{path!r} is new.")
        variable.assign(variables.pop(path))
    for path in variables:
        raise UserError(f"{path!r} is missing.")
    layer_state.derive(new)
