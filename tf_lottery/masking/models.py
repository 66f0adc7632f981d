"""This module knows how masks get into a whole model and out again."""

from collections.abc import Callable, Iterable

import keras
import numpy as np

from tf_lottery import layers
from tf_lottery.masking import coverage, optimizer, paths
from tf_lottery.masks import Masks


def mask_model(
    model: keras.Model,
    include: coverage.Patterns = None,
    exclude: coverage.Patterns = None,
) -> keras.Model:
    """Returns the same model with masked layers, all weights kept.

    The result is an ordinary Keras model: whatever trains it, pruned weights
    take no part. Its weights equal the given model's, which stays as it is.

    Args:
        model: A built Sequential or functional model; nested ones and shared
            layers stay so.
        include: Glob patterns of kernel paths to mask. None: all.
        exclude: Glob patterns of kernel paths not to mask.

    Returns:
        A new model with masked layers in place of plain ones.

    Raises:
        TypeError: It is no Keras 3 model.
        ValueError: It is not built, subclassed, has no kernel to mask, or a
            pattern matches none.
    """
    chosen = coverage.kernels(model, include, exclude)
    wanted = {id(kernel.layer) for kernel in chosen.values()}

    def masked(layer: keras.layers.Layer) -> keras.layers.Layer:
        cls = layers.CATALOGUE.get(type(layer), type(layer))
        if id(layer) not in wanted:
            cls = type(layer)
        return cls.from_config(layer.get_config())

    masked_model = _rebuilt(model, masked)
    left = chosen.keys() - _mask_variables(masked_model).keys()
    _require_none(left, "gets no mask: Keras rebuilds no layer inside")
    return masked_model


def _require_none(paths_left: Iterable[str], what: str) -> None:
    for path in sorted(paths_left):
        raise ValueError(
            f"{path!r} {what} another layer, nor a subclass. Exclude it, or "
            "mask its training: masked_optimizer(optimizer, masks, model)."
        )


def strip_masks(model: keras.Model) -> keras.Model:
    """Returns the same model with plain layers, pruned weights at zero.

    Args:
        model: A built model, with masked layers or without.

    Returns:
        A new model of stock Keras layers that gives the same outputs.
    """
    plain = {masked: cls for cls, masked in layers.CATALOGUE.items()}

    def stripped(layer: keras.layers.Layer) -> keras.layers.Layer:
        cls = plain.get(type(layer), type(layer))
        return cls.from_config(layer.get_config())

    plain_model = _rebuilt(model, stripped)
    _require_none(_mask_variables(plain_model), "still carries a mask inside")
    variables = paths.variables_by_path(plain_model)
    for path, mask in _mask_variables(model).items():
        optimizer.project(variables[path], mask.numpy())
    return plain_model


def get_masks(model: keras.Model) -> Masks:
    """Returns the masks of a masked model; of another one, ones.

    Args:
        model: A built Keras 3 model.
    """
    carried = _mask_variables(model)
    maskable = coverage.found(model) if carried else coverage.kernels(model)
    shapes = {path: k.variable.shape for path, k in maskable.items()}
    ones = {path: np.ones(shape, bool) for path, shape in shapes.items()}
    return Masks(ones | {path: mask.numpy() for path, mask in carried.items()})


def set_masks(model: keras.Model, masks: Masks) -> None:
    """Gives a masked model these masks and sets pruned weights to zero.

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
        raise ValueError(
            f"Model {model.name!r} has no masked layer. "
            "Use `model = mask_model(model)` first."
        )
    variables = paths.variables_by_path(model)
    whole = {p for p, m in masks.items() if p not in carried and m.all()}
    shapes = {p: variables[p].shape for p in whole if p in variables}
    masks.require(shapes | {p: tuple(v.shape) for p, v in carried.items()})
    for path in carried:
        mask = masks[path]
        carried[path].assign(mask)
        optimizer.project(variables[path], mask)


def _mask_variables(model: keras.Model) -> dict[str, keras.Variable]:
    coverage.require_model(model)
    return {
        f"{path}/kernel": layer.kernel_mask
        for path, layer in paths.layers_by_path(model).items()
        if isinstance(layer, layers.MaskedKernel)
    }


def _rebuilt(
    model: keras.Model,
    clone: Callable[[keras.layers.Layer], keras.layers.Layer],
) -> keras.Model:
    coverage.require_model(model)
    # A layer shared between containers must stay one layer.
    clones: dict[int, keras.layers.Layer] = {}

    def once(layer: keras.layers.Layer) -> keras.layers.Layer:
        if id(layer) not in clones:
            clones[id(layer)] = clone(layer)
        return clones[id(layer)]

    try:
        new = keras.models.clone_model(
            model, clone_function=once, recursive=True
        )
    except ValueError as error:
        if "clone_function" not in str(error):
            raise
        raise ValueError(
            f"Model {model.name!r} is subclassed ({type(model).__qualname__}), "
            "and its layers cannot be replaced. Mask its training instead: "
            "model.compile(masked_optimizer(optimizer, masks))."
        ) from None
    old_variables = paths.variables_by_path(model)
    for path, variable in paths.variables_by_path(new).items():
        variable.assign(old_variables[path])
    masks = _mask_variables(model)
    for path, mask in _mask_variables(new).items():
        if path in masks:
            mask.assign(masks[path])
    return new
