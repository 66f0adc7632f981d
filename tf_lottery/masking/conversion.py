"""Conversion of layers to their masked forms and back, in place."""

import functools
import types
from typing import Any

import keras

from tf_lottery.masking import kernel_masks, masked_layer
from tf_lottery.masking.layers import CATALOGUE, KERNELS, PACKAGE, WITH_PARTS
from tf_lottery.masking.masked_layer import MaskedKernel, MaskedParts
from tf_lottery.masking.masked_variable import become, unmask_variable


def mask_weight(layer: keras.layers.Layer, name: str) -> None:
    """Gives a weight of a built layer a mask of ones, in place.

    Args:
        layer: A layer, masked or not.
        name: The attribute by which its code reads the weight, see
            `attributes_of`.
    """
    names = _masked_weights(layer)
    if name not in names:
        plain: Any = plain_class(type(layer))
        become(layer, plain)
        names = (*names, name)
        if plain in CATALOGUE and {*names} == {*stored_kernels(layer)}:
            become(layer, CATALOGUE[plain])
        else:
            become(layer, masked_class(plain, names))
    kernel_masks.add_mask(layer, name)


def mask_kernels(layer: keras.layers.Layer) -> None:
    """Gives kernels of a built layer masks of ones, in place.

    Args:
        layer: A layer. Of a masked one, the weights that its class names are
            masked; of a plain one all kernels.
    """
    chosen = _masked_weights(layer)
    for name in stored_kernels(layer):
        if not chosen or name in chosen:
            mask_weight(layer, name)


def mask_container(layer: keras.layers.Layer) -> None:
    """Converts a layer with masked parts to its masked form, in place.

    Files then load its parts with masks.

    Args:
        layer: Any layer. It is changed if it is one of `WITH_PARTS` and a part
            of it has masks.
    """
    if type(layer) in WITH_PARTS and any(
        vars(part).get("kernel_masks") for part in layer._flatten_layers()
    ):
        become(layer, CATALOGUE[type(layer)])


def copy_masks(source: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Copies the masks of a layer to another one.

    Args:
        source: A masked layer.
        layer: A built layer with the same weights, which is changed.
    """
    for name in _masked_weights(source):
        mask = kernel_masks.mask_of(source, name)
        if mask is not None:
            mask_weight(layer, name)
            getattr(layer, f"{name}_mask").assign(mask)
    if isinstance(source, MaskedParts) and type(layer) in CATALOGUE:
        become(layer, CATALOGUE[type(layer)])


def unmask_layer(layer: keras.layers.Layer) -> None:
    """Converts a masked layer to the plain one, in place.

    Args:
        layer: Any layer. Pruned weights of a masked one are zero.
    """
    masks = vars(layer).get("kernel_masks")
    if masks is not None:
        for mask in masks.masks().values():
            unmask_variable(mask.weight)
        del layer.kernel_masks
        vars(layer)["quantize"] = vars(layer).pop("plain_quantize")
    if isinstance(layer, MaskedKernel | MaskedParts):
        become(layer, plain_class(type(layer)))


def stored_kernels(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """Returns the kernels of a built layer as they are stored, unmasked.

    Args:
        layer: A layer, masked or not.

    Returns:
        The attribute by which the layer's code reads each kernel, to the
        kernel. Quantised kernels are integers and are left out.
    """
    known = (KERNELS[cls] for cls in type(layer).__mro__ if cls in KERNELS)
    names = dict.fromkeys((*next(known, ()), *_masked_weights(layer)))
    weights = {n: kernel_masks.stored_weight(layer, n) for n in names}
    return {
        name: weight
        for name, weight in weights.items()
        if isinstance(weight, keras.Variable)
    }


def attributes_of(
    layer: keras.layers.Layer, variable: keras.Variable
) -> list[str]:
    """Returns the attributes by which a layer's code reads a variable.

    Args:
        layer: A layer.
        variable: A variable, of this layer or of another one.
    """
    stored = [name for name, value in vars(layer).items() if value is variable]
    return [
        name.removeprefix("_")
        if isinstance(getattr(type(layer), name[1:], None), property)
        else name
        for name in stored
    ]


def _masked_weights(layer: keras.layers.Layer) -> tuple[str, ...]:
    return getattr(layer, "masked_weights", ())


@keras.saving.register_keras_serializable(PACKAGE)
class FiledByName:
    """Files a masked layer as the plain layer and the names of its masks.

    For layers without a masked form in the `CATALOGUE`: a layer of the
    user's, or one with only some of its kernels masked.
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the plain layer as Keras files it, and what is masked."""
        plain: Any = plain_class(type(self))
        return {
            "layer": {
                "module": plain.__module__,
                "class_name": plain.__name__,
                "registered_name": keras.saving.get_registered_name(plain),
                "config": super().get_config(),  # type: ignore[misc]
            },
            "masked_weights": list(self.masked_weights),  # type: ignore
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles what Keras files; no module has the class to pickle."""
        parent: Any = super()
        load, arguments = parent.__reduce__()
        load = types.MethodType(load.__func__, keras.layers.Layer)
        return load, arguments

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Returns a masked layer of the class that the configuration names."""
        layer = config["layer"]
        plain: Any = type(keras.saving.deserialize_keras_object({**layer}))
        masked: Any = masked_class(plain, tuple(config["masked_weights"]))
        parent: Any = super(FiledByName, masked)
        return parent.from_config({**layer["config"]})


@functools.cache
def masked_class(
    plain: type[keras.layers.Layer], names: tuple[str, ...]
) -> type[keras.layers.Layer]:
    """Returns the form of a layer's class that masks these weights.

    Args:
        plain: The class of a plain layer.
        names: The attributes by which its code reads the weights to mask.
    """
    bases = (FiledByName, MaskedKernel, plain)
    cls = masked_layer.masked_subclass(
        bases, names, plain.__qualname__, plain.__module__
    )
    name = FiledByName.__name__
    # All these classes have one name in files, and `FiledByName` loads it.
    for each in (cls, FiledByName):
        keras.saving.register_keras_serializable(PACKAGE, name)(each)
    return cls


def plain_class(cls: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Returns the plain class that a masked class is made from.

    Args:
        cls: A class of layers; a plain one is returned as it is.
    """
    mixins = (FiledByName, MaskedKernel, MaskedParts)
    return next(c for c in cls.__mro__ if not issubclass(c, mixins))
