"""Masks of a whole model: add, read, set and remove them."""

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

    The result is an ordinary Keras model. Pruned weights have no effect on it,
    in any training loop. Its weights equal those of `model`, which is not
    changed.

    Pruned weights are zero in the forward pass, in every file, and in memory:
    after every step of every Keras optimizer, and after `set_weights`,
    `load_weights`, `assign`, a callback or a checkpoint sets them.

    Masks only shrink: loading a file or a `tf.train.Checkpoint` prunes the
    weights that it prunes, and revives no weight that the model has pruned. A
    model whose masks are all ones takes the masks of the file. Only
    `set_masks` frees a weight to train again.

    A `.keras` file loads as layers with their masks, layers of your own
    included. There are two exceptions: attention and recurrent layers load
    with masks on all their kernels, of ones for a kernel without a mask; and
    the code of a subclassed model builds plain layers, with pruned weights at
    zero.

    Args:
        model: A built model of any kind: Sequential, functional, subclassed,
            with nested models and shared layers.
        include: Glob patterns of kernel paths to mask. None: all kernels. A
            pattern may also name trainable variables of your own layers.
        exclude: Glob patterns of kernel paths not to mask.
        copy: Whether to mask a copy. False masks the model itself, for
            subclassed models that Keras cannot rebuild from a configuration.

    Returns:
        The model with masked layers instead of plain ones.

    Raises:
        UserTypeError: It is not a Keras 3 model.
        UserError: It is not built, cannot be copied, has no kernel to mask, a
            pattern matches no kernel, or a variable cannot be masked.
    """
    chosen = coverage.kernels(model, include, exclude)
    for path, kernel in chosen.items():
        _require_maskable(path, _readers(model, kernel.variable), model)
    masked = clone_model(model) if copy else model
    variables = paths.variables_by_path(masked)
    for path in chosen:
        _mask(masked, variables[path])
    return masked


def _mask(model: keras.Model, variable: keras.Variable) -> None:
    for layer, name in _readers(model, variable):
        conversion.mask_weight(layer, name)
    for layer in model._flatten_layers():
        conversion.mask_container(layer)


def _readers(
    model: keras.Model, variable: keras.Variable
) -> list[tuple[keras.layers.Layer, str]]:
    """Returns the layers that read a variable, each with the attribute."""
    return [
        (layer, name)
        for layer in model._flatten_layers()
        for name in conversion.attributes_of(layer, variable)
    ]


def _require_maskable(
    path: str,
    readers: list[tuple[keras.layers.Layer, str]],
    model: keras.Model,
) -> None:
    reason = "is in no attribute of a layer"
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.SpectralNormalization) and any(
            reader is layer.layer for reader, _ in readers
        ):
            readers, reason = [], "is overwritten by SpectralNormalization"
    if any(isinstance(layer, keras.Model) for layer, _ in readers):
        readers, reason = [], "belongs to the model, not to a layer"
    if not readers:
        raise UserError(
            f"{path!r} {reason}, so a layer cannot mask it. Exclude it, or "
            "mask its training: masked_optimizer(optimizer, masks, model)."
        )


def strip_masks(model: keras.Model, copy: bool = True) -> keras.Model:
    """Returns the same model with plain layers, pruned weights at zero.

    Args:
        model: A built model, with or without masked layers.
        copy: Whether to strip a copy. False strips the model itself, for
            subclassed models that Keras cannot rebuild from a configuration.

    Returns:
        A model of plain Keras layers that gives the same outputs.

    Raises:
        UserError: A masked layer is under LoRA, or the model cannot be copied.
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
    """Returns whether a model has masked layers.

    Args:
        model: A built Keras 3 model.
    """
    return bool(_mask_variables(model))


def get_masks(model: keras.Model) -> Masks:
    """Returns the masks of a model.

    Args:
        model: A built Keras 3 model. A kernel without a mask gets a mask of
            ones.

    Raises:
        UserTypeError: It is not a Keras 3 model.
        UserError: It is not built, or has no kernel to mask.
    """
    present = _mask_variables(model)
    maskable = (
        coverage.maskable_kernels(model) if present else coverage.kernels(model)
    )
    return masks_or_ones(model, [*maskable, *(present.keys() - maskable)])


def masks_or_ones(model: keras.Model, chosen: Iterable[str]) -> Masks:
    """Returns the masks of some variables, ones for those without a mask.

    Args:
        model: A built Keras 3 model.
        chosen: The paths of the variables.
    """
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

    The slots and averages of pruned weights in the optimizer that the model is
    compiled with become zero too.

    Args:
        model: A model with masked layers, as `mask_model` returns.
        masks: One mask for each masked kernel of the model. Masks of other
            kernels must be all ones.

    Raises:
        UserError: The masks do not fit the model, or it has no masked layer.
            The model is not changed then.
    """
    present = _mask_variables(model)
    if not present:
        raise UserError(
            f"Model {model.name!r} has no masked layer. "
            "Use `model = mask_model(model)` first."
        )
    variables = paths.variables_by_path(model)
    ones = {p for p, m in masks.items() if p not in present and m.all()}
    shapes = {p: variables[p].shape for p in ones if p in variables}
    masks.require(
        shapes | {path: tuple(m.shape) for path, m in present.items()}
    )
    for path, mask in present.items():
        mask.assign(masks[path])
    masked_optimizer.zero_pruned_slots(
        getattr(model, "optimizer", None),
        [(variables[path], masks[path]) for path in present],
    )


def _mask_variables(model: keras.Model) -> dict[str, Mask]:
    coverage.require_model(model)
    return {
        path: variable.mask
        for path, variable in paths.variables_by_path(model).items()
        if isinstance(variable, MaskedVariable)
    }
