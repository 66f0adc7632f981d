"""Storage of the masks of one layer, for files and checkpoints."""

import functools
from typing import Any

import keras

from tf_lottery.core.errors import UserError
from tf_lottery.masking.masked_variable import (
    Mask,
    MaskedVariable,
    mask_variable,
)


class KernelMasks(keras.layers.Layer):
    """The masks of one layer, in the form that files and checkpoints store.

    This is a layer so that Keras files the masks in a separate group, which
    the plain layer ignores and which may be missing. The masked layer has it
    as an attribute, not as one of its layers.
    """

    def __init__(self) -> None:
        super().__init__(name="kernel_masks", dtype="float32")
        self.built = True

    def add(self, name: str, weight: keras.Variable) -> None:
        """Gives a weight a mask of ones."""
        if isinstance(weight, MaskedVariable):  # two layers share the weight
            mask = weight.mask
        else:
            mask = self.add_weight(
                name=f"{name}_mask",
                shape=weight.shape,
                dtype="bool",
                initializer="ones",
                trainable=False,
            )
            mask_variable(weight, mask)
        setattr(self, f"{name}_mask", mask)

    def masks(self) -> dict[str, Mask]:
        """Returns the masks by their names: `"kernel_mask"`."""
        return {n: m for n, m in vars(self).items() if isinstance(m, Mask)}

    def save_own_variables(self, store: Any) -> None:
        """Saves the masks under their names."""
        for name, mask in self.masks().items():
            store[name] = mask

    def load_own_variables(self, store: Any) -> None:
        """Prunes what the masks of the file prune; revives nothing."""
        for name, mask in self.masks().items():
            if name in store.keys():  # noqa: SIM118, h5py has keys only
                mask.shrink(store[name])


def stored_weight(layer: keras.layers.Layer, name: str) -> Any:
    """Returns the weight that a layer's code reads by an attribute, unmasked.

    Args:
        layer: A layer.
        name: The attribute; Keras stores some weights behind a property.
    """
    return vars(layer).get(name, vars(layer).get(f"_{name}"))


def mask_of(layer: keras.layers.Layer, name: str) -> Mask | None:
    """Returns the mask of a layer's weight; None if it has none.

    Args:
        layer: A layer with masks.
        name: The attribute by which its code reads the weight.
    """
    return getattr(layer.kernel_masks, f"{name}_mask", None)


def add_masks(layer: Any) -> None:
    """Gives the `masked_weights` of a layer masks of ones.

    Args:
        layer: A built layer of a masked class.
    """
    for name in layer.masked_weights:
        if isinstance(stored_weight(layer, name), keras.Variable):
            add_mask(layer, name)


def add_mask(layer: Any, name: str) -> None:
    """Gives one weight of a built layer a mask of ones, unless it has one.

    Args:
        layer: A built layer of a masked class.
        name: The attribute by which its code reads the weight.
    """
    if vars(layer).get("kernel_masks") is None:
        # A built layer refuses new sublayers; Keras' `enable_lora` does this.
        is_locked = layer._tracker.locked
        layer._tracker.unlock()
        layer.kernel_masks = KernelMasks()
        # TensorFlow finds it, but Keras does not list it among the weights.
        layer._tracker.untrack(layer.kernel_masks)
        if is_locked:  # else the `build` of a subclass goes on
            layer._lock_state()
        # On the instance, where Keras puts its wrapper of the method.
        vars(layer)["plain_quantize"] = layer.quantize
        vars(layer)["quantize"] = functools.partial(
            _refuse_to_quantize, layer.name
        )
    if mask_of(layer, name) is None:
        layer.kernel_masks.add(name, stored_weight(layer, name))


def _refuse_to_quantize(name: str, *args: Any, **kwargs: Any) -> None:
    del args, kwargs
    raise UserError(
        f"Layer {name!r} is masked and cannot be quantised: quantise "
        "strip_masks(model), whose pruned weights are zeros and stay zeros."
    )
