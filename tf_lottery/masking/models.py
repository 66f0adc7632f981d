"""This module knows how masks get into a whole model and out again."""

from collections.abc import Iterable

import keras
import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.masking import conversion, coverage, masked_optimizer, paths
from tf_lottery.masking.copies import clone_model
from tf_lottery.masking.masked_variable import Mask, MaskedVariable


def mask_model(
    model: keras.Model,
    include: coverage.Patterns = None,
    exclude: coverage.Patterns = None,
    copy: bool = True,
) -> keras.Model:
    """Returns the same model with masked layers, all weights kept.

    The result is an ordinary Keras model: whatever trains it, pruned weights
    take no part. Its weights equal the given model's, which stays as it is.

    Pruned weights are zero in the forward pass, in every file, and where they
    are stored: after every step of every Keras optimizer, and whatever sets
    them, `set_weights`, `load_weights`, `assign`, a callback or a checkpoint.

    Masks only shrink: loading a file or a `tf.train.Checkpoint` prunes what
    it prunes, and revives nothing that the model has pruned. A model whose
    masks are all ones takes the masks of the file. Only `set_masks` frees a
    weight to train again.

    A `.keras` file gives back each layer with its masks, layers of your own
    too. Two exceptions: attention and recurrent layers come back with masks
    on all their kernels, of ones where there was none; and the code of a
    subclassed model builds plain layers, with pruned weights at zero.

    Args:
        model: A built model, of any kind: Sequential, functional, subclassed;
            nested ones and shared layers stay so.
        include: Glob patterns of kernel paths to mask. None: all. They may
            name variables of your own layers, see `kernels`.
        exclude: Glob patterns of kernel paths not to mask.
        copy: Whether to mask a copy. False masks the model itself, for
            subclassed models that Keras cannot rebuild from a configuration.

    Returns:
        The model with masked layers in place of plain ones.

    Raises:
        TypeError: It is no Keras 3 model.
        ValueError: It is not built, cannot be copied, has no kernel to mask,
            or a pattern matches none; or no mask can stand before a variable.
    """
    chosen = coverage.kernels(model, include, exclude)
    holders = {path: _holders(model, k.variable) for path, k in chosen.items()}
    for path, found in holders.items():
        _require_maskable(path, found, model)
    masked = clone_model(model) if copy else model
    variables = paths.variables_by_path(masked)
    for path in chosen:
        _mask(masked, variables[path])
    return masked


def _mask(model: keras.Model, variable: keras.Variable) -> None:
    for layer, name in _holders(model, variable):
        conversion.mask_weight(layer, name)
    for layer in model._flatten_layers():
        conversion.mask_container(layer)


def _holders(
    model: keras.Model, variable: keras.Variable
) -> list[tuple[keras.layers.Layer, str]]:
    """Returns the layers that read a variable, and by which attribute."""
    return [
        (layer, name)
        for layer in model._flatten_layers()
        for name in conversion.attributes_of(layer, variable)
    ]


def _require_maskable(
    path: str,
    holders: list[tuple[keras.layers.Layer, str]],
    model: keras.Model,
) -> None:
    why = "is kept in no attribute of a layer"
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.SpectralNormalization) and any(
            holder is layer.layer for holder, _ in holders
        ):
            holders, why = [], "is assigned anew by SpectralNormalization"
    if any(isinstance(layer, keras.Model) for layer, _ in holders):
        holders, why = [], "is the model's own, not a layer's"
    if not holders:
        raise UserError(
            f"{path!r} {why}: no mask can stand before it. Exclude it, or "
            "mask its training: masked_optimizer(optimizer, masks, model)."
        )


def strip_masks(model: keras.Model, copy: bool = True) -> keras.Model:
    """Returns the same model with plain layers, pruned weights at zero.

    Args:
        model: A built model, with masked layers or without.
        copy: Whether to strip a copy, as for `mask_model`.

    Returns:
        A model of stock Keras layers that gives the same outputs.

    Raises:
        ValueError: A masked layer is under LoRA.
    """
    coverage.require_model(model)
    for layer in model._flatten_layers():
        if vars(layer).get("kernel_masks") and getattr(
            layer, "lora_enabled", False
        ):
            raise UserError(
                f"Layer {layer.name!r} is masked under LoRA, which would fill "
                "its pruned weights without the mask: save_weights, and load "
                "them into the plain model, for files have LoRA merged."
            )
    plain = clone_model(model) if copy else model
    for layer in list(plain._flatten_layers()):
        conversion.unmask_layer(layer)
    return plain


def is_masked(model: keras.Model) -> bool:
    """Returns whether a model has masked layers."""
    return bool(_mask_variables(model))


def get_masks(model: keras.Model) -> Masks:
    """Returns the masks of a masked model; of another one, ones.

    Args:
        model: A built Keras 3 model.
    """
    carried = _mask_variables(model)
    maskable = (
        coverage.maskable_kernels(model) if carried else coverage.kernels(model)
    )
    return masks_or_ones(model, [*maskable, *(carried.keys() - maskable)])


def masks_or_ones(model: keras.Model, chosen: Iterable[str]) -> Masks:
    """Returns the masks of chosen variables: ones where it carries none."""
    variables = paths.variables_by_path(model)
    masks = {p: m.numpy() for p, m in _mask_variables(model).items()}
    return Masks(
        {
            path: masks.get(path, np.ones(variables[path].shape, bool))
            for path in chosen
        }
    )


def set_masks(model: keras.Model, masks: Masks) -> None:
    """Gives a masked model these masks and sets pruned weights to zero.

    The optimizer that the model is compiled with forgets pruned weights too:
    its slots and averages of them become zero.

    Args:
        model: A model with masked layers, as `mask_model` returns.
        masks: One mask for each masked kernel of the model; others may only
            keep every weight.

    Raises:
        ValueError: The masks do not fit the model, or it has no masked layer.
            Nothing is changed then.
    """
    carried = _mask_variables(model)
    if not carried:
        raise UserError(
            f"Model {model.name!r} has no masked layer. "
            "Use `model = mask_model(model)` first."
        )
    variables = paths.variables_by_path(model)
    whole = {p for p, m in masks.items() if p not in carried and m.all()}
    shapes = {p: variables[p].shape for p in whole if p in variables}
    masks.require(
        shapes | {path: tuple(m.shape) for path, m in carried.items()}
    )
    for path, mask in carried.items():
        mask.assign(masks[path])
    masked_optimizer.forget(
        getattr(model, "optimizer", None),
        [(variables[path], masks[path]) for path in carried],
    )


def _mask_variables(model: keras.Model) -> dict[str, Mask]:
    coverage.require_model(model)
    return {
        path: variable.mask
        for path, variable in paths.variables_by_path(model).items()
        if isinstance(variable, MaskedVariable)
    }
