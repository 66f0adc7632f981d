"""Mixins that mask the kernels of a Keras layer, and storage of the masks."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import keras

from tf_lottery.core.errors import UserError
from tf_lottery.masking.masked_variable import (
    Mask,
    MaskedVariable,
    apply_mask,
    mask_variable,
)


class MaskedKernel:
    """Gives a Keras layer masks on weights that it reads as attributes.

    The layer computes with `where(mask, kernel, 0)`: a pruned weight has no
    effect on the forward pass and gets a gradient of exactly zero, in every
    training loop. While `call` runs, `layer.kernel` is this tensor, in the
    thread that calls. Everywhere else it is the stored variable, a
    `MaskedVariable`: `assign`, `constraint`, `regularizer` and `path` are
    those of the plain layer, and `assign` writes zeros at pruned weights.

    Mix in before the layer, and name the weights to mask:

        class MaskedMine(MaskedKernel, Mine):
            masked_weights = ("w",)

    The mask of `w` is the layer's `w_mask`, a bool variable. `weights` does
    not list it, so that weights of plain and masked layers are exchanged by
    `set_weights` and by files. It is saved in `.keras` files, in files of
    weights, in `tf.train.Checkpoint` and in SavedModels.

    Masks only shrink: loading a file or a checkpoint into a masked layer
    prunes all weights that the file or the layer has pruned. A new layer,
    which has pruned nothing, gets the mask of the file. Only `set_masks`, or
    assigning to the mask, frees a weight to train again.

    Keras files weights under the `__name__` of a class. Where that is the
    name of the plain layer, as in the `CATALOGUE`, files of weights of plain
    and masked models load into each other.
    """

    masked_weights: ClassVar[tuple[str, ...]] = ("kernel",)
    kernel_masks: "KernelMasks | None" = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Adds the methods that `MaskedDense` writes out."""
        super().__init_subclass__(**kwargs)
        names = [n for n in cls.masked_weights if f"{n}_mask" not in vars(cls)]
        bases = [c for c in cls.__mro__ if issubclass(c, MaskedKernel)]
        for name in names:
            if not any(f"{name}_mask" in vars(base) for base in bases):
                weight = _weight_property(name, getattr(cls, name, None))
                setattr(cls, name, weight)
                setattr(cls, f"{name}_mask", _mask_property(name))
        if names:
            _extend_methods(cls, add_masks, lambda layer: [layer])


class MaskedParts:
    """Masks the kernels of layers that a Keras layer creates itself.

    Attention has its projections and an LSTM its cell, and each of these
    layers has its own masks. On a GPU an LSTM computes with the kernels of
    its cell.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Masks the parts as soon as they are built."""
        super().__init_subclass__(**kwargs)
        parts = lambda layer: layer._flatten_layers()  # noqa: E731
        _extend_methods(cls, _mask_parts, parts)


def _mask_parts(layer: Any) -> None:
    # Not at the top: `conversion` imports this module.
    from tf_lottery.masking import conversion

    for part in layer._flatten_layers(include_self=False):
        conversion.mask_kernels(part)


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
    """Gives the `masked_weights` of a built layer masks of ones."""
    for name in layer.masked_weights:
        if isinstance(stored_weight(layer, name), keras.Variable):
            add_mask(layer, name)


def add_mask(layer: Any, name: str) -> None:
    """Gives one weight of a built layer a mask of ones, unless it has one.

    Args:
        layer: A layer of a masked class.
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


class _Computing(threading.local):
    """The layers whose `call` runs in this thread."""

    def __init__(self) -> None:
        self.layers: list[keras.layers.Layer] = []


_computing = _Computing()


@contextlib.contextmanager
def masked_reads(*layers: Any) -> Iterator[None]:
    """Lets code that reads weights of these layers read masked tensors."""
    before = _computing.layers
    _computing.layers = [*before, *layers]
    try:
        yield
    finally:
        _computing.layers = before


def read_weight(layer: keras.layers.Layer, name: str, weight: Any) -> Any:
    """Returns a weight as code reads it from an attribute of its layer.

    Args:
        layer: The layer.
        name: The attribute.
        weight: The value that the plain layer returns for this attribute.

    Returns:
        The stored variable; inside `masked_reads` the masked tensor.
    """
    if isinstance(weight, MaskedVariable):
        is_computing = any(each is layer for each in _computing.layers)
        return weight.masked_value() if is_computing else weight
    mask = mask_of(layer, name)
    if mask is None or isinstance(weight, keras.Variable):
        return weight
    return apply_mask(weight, mask)  # under LoRA it is a sum, a tensor


def _weight_property(name: str, plain: Any) -> property:
    """Returns the attribute of a masked weight, as `MaskedDense.kernel`.

    Args:
        name: The attribute.
        plain: What the plain class has under this name: a property or None.
    """
    is_property = isinstance(plain, property)

    def read(layer: Any) -> Any:
        if is_property:
            weight = plain.fget(layer)
        elif name in vars(layer):
            weight = vars(layer)[name]
        else:
            raise AttributeError(
                f"You must build the layer before accessing `{name}`."
            )
        return read_weight(layer, name, weight)

    def write(layer: Any, value: Any) -> None:
        vars(layer)[name] = value

    doc = "The stored weight; while the layer computes, the masked tensor."
    return property(read, None if is_property else write, doc=doc)


def _mask_property(name: str) -> property:
    doc = f"The mask of `{name}`: bool, False where pruned, or None."
    return property(lambda layer: mask_of(layer, name), doc=doc)


def _extend_methods(
    cls: Any,
    mask: Callable[[Any], None],
    layers_of: Callable[[Any], Iterable[keras.layers.Layer]],
) -> None:
    """Extends `build` and `call` of a masked class, each once.

    Args:
        cls: The class.
        mask: Called with the layer after `build`.
        layers_of: Returns the layers whose weights `call` reads masked.
    """
    build, call = cls.build, cls.call

    def build_and_mask(layer: Any, *args: Any, **kwargs: Any) -> None:
        build(layer, *args, **kwargs)
        mask(layer)

    def call_masked(layer: Any, *args: Any, **kwargs: Any) -> Any:
        with masked_reads(*layers_of(layer)):
            return call(layer, *args, **kwargs)

    for name, plain, extended in (
        ("build", build, build_and_mask),
        ("call", call, call_masked),
    ):
        if not hasattr(plain, "is_masked"):
            # Keras reads the plain signature. `updated` drops the mark that
            # Keras sets on methods that nobody overrides.
            method: Any = functools.wraps(plain, updated=())(extended)
            method.is_masked = True
            setattr(cls, name, method)


def masked_subclass(
    bases: tuple[type, ...], names: tuple[str, ...], qualname: str, module: str
) -> type[keras.layers.Layer]:
    """Returns a masked class, made from mixins and a plain class.

    Args:
        bases: The mixins, then the plain class.
        names: Its `masked_weights`.
        qualname: Its `__qualname__`; its `__name__` is that of the plain class.
        module: Its `__module__`, where pickle looks for it.
    """
    plain = bases[-1]
    masked = ", ".join(f"`{name}`" for name in names) or "its parts' kernels"
    content = {
        "masked_weights": names,
        "__qualname__": qualname,
        "__module__": module,
        "__doc__": f"`{plain.__name__}` with masks on {masked}.\n\n"
        "    Masks of ones give the plain layer, bit for bit. Takes its "
        "arguments.\n    ",
    }
    return type(plain.__name__, bases, content)
