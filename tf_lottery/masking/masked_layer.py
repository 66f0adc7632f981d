"""Mixins that mask the kernels of a Keras layer."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import keras

from tf_lottery.masking.kernel_masks import KernelMasks, add_masks, mask_of
from tf_lottery.masking.masked_variable import (
    MaskedVariable,
    apply_mask,
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
    kernel_masks: KernelMasks | None = None

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


class _Computing(threading.local):
    """The layers whose `call` runs in this thread."""

    def __init__(self) -> None:
        self.layers: list[keras.layers.Layer] = []


_computing = _Computing()


@contextlib.contextmanager
def masked_reads(*layers: Any) -> Iterator[None]:
    """Lets code of this thread read masked tensors as weights of layers.

    Args:
        *layers: The layers whose `call` is about to run.
    """
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
