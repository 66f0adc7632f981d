"""Keras layers with masks on their kernels."""

import functools
import threading
import types
from collections.abc import Callable
from typing import Any, ClassVar

import keras

# Public by its layers only; making one would draw from Python's generator.
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from tf_lottery.core.errors import UserError
from tf_lottery.masking.masked_variable import (
    Mask,
    MaskedVariable,
    kept,
    mask_variable,
    unmask_variable,
)

_PACKAGE = "tf_lottery"
L = keras.layers


class MaskedKernel:
    """Gives a Keras layer masks on weights that it reads as attributes.

    The layer computes with `where(mask, kernel, 0)`: a pruned weight takes no
    part in the forward pass and gets a gradient of exactly zero, whatever
    trains the layer. While `call` runs, `layer.kernel` is this tensor, in the
    thread that calls. For everybody else it is the stored variable, a
    `MaskedVariable`: `assign`, `constraint`, `regularizer` and `path` are
    those of the plain layer, and pruned weights are zero whatever is assigned.

    Mix in before the layer, and name what to mask:

        class MaskedMine(MaskedKernel, Mine):
            masked_weights = ("w",)

    The mask of `w` is the layer's `w_mask`, a bool variable. `weights` does
    not list it, so that weights of plain and masked layers are exchanged by
    `set_weights` and by files. It travels in `.keras` files, in files of
    weights, in `tf.train.Checkpoint` and in SavedModels.

    Masks only shrink: loading a file or a checkpoint into a masked layer
    prunes what the file prunes and what the layer has pruned already. A new
    layer, which has pruned nothing, gets the mask of the file. Only
    `set_masks`, or assigning to the mask, frees a weight to train again.

    Keras files weights under the `__name__` of a class; where that is the
    plain layer's, as in the `CATALOGUE`, files of weights of plain and masked
    models load into each other.
    """

    masked_weights: ClassVar[tuple[str, ...]] = ("kernel",)
    kernel_masks: "KernelMasks | None" = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes the masked weights properties."""
        super().__init_subclass__(**kwargs)
        for name in cls.masked_weights:
            plain = getattr(cls, name, None)
            if not isinstance(plain, _Weight):
                setattr(cls, name, _Weight(name, plain))
                setattr(cls, f"{name}_mask", _mask(name))
        _extend(cls, "build", _masking(_mask_kernels))
        _extend(cls, "call", _computing(lambda layer: [layer]))


@keras.saving.register_keras_serializable(_PACKAGE)
class FiledByName:
    """Files a masked layer as the plain one, and what is masked of it.

    For what the `CATALOGUE` has no masked form of: a layer of the user's, or
    one whose kernels are masked in part.
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
        return types.MethodType(load.__func__, L.Layer), arguments

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """Returns a masked layer of the class that the configuration names."""
        layer = config["layer"]
        plain: Any = type(keras.saving.deserialize_keras_object({**layer}))
        masked: Any = named_class(plain, tuple(config["masked_weights"]))
        own: Any = super(FiledByName, masked)
        return own.from_config({**layer["config"]})


class MaskedParts:
    """Masks the kernels of layers that a Keras layer makes for itself.

    Attention has its projections, an LSTM its cell; their masks are the
    parts' own. On a GPU an LSTM computes with the kernels of its cell.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Masks the parts as soon as they are built."""
        super().__init_subclass__(**kwargs)
        _extend(cls, "build", _masking(_mask_parts))
        _extend(cls, "call", _computing(lambda layer: layer._flatten_layers()))


class KernelMasks(keras.layers.Layer):
    """The masks of one layer, as files and checkpoints hold them.

    A layer of its own, so that Keras files the masks in a group of their own,
    which the plain layer does not look into and which may be missing. The
    masked layer has it as an attribute, not as one of its layers.
    """

    def __init__(self) -> None:
        super().__init__(name="kernel_masks", dtype="float32")
        self.built = True

    def add(self, name: str, weight: keras.Variable) -> None:
        """Gives a weight a mask that keeps all of it."""
        if isinstance(weight, MaskedVariable):  # two layers have it
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


class _Weight(property):
    """A masked weight as an attribute of its layer."""

    def __init__(self, name: str, plain: Any) -> None:
        is_property = isinstance(plain, property)

        def get(layer: Any) -> Any:
            if is_property:
                value = plain.fget(layer)
            elif name in vars(layer):
                value = vars(layer)[name]
            else:
                raise AttributeError(
                    f"You must build the layer before accessing `{name}`."
                )
            if isinstance(value, keras.Variable):
                is_masked = isinstance(value, MaskedVariable)
                return value.kept() if is_masked and computes(layer) else value
            mask = getattr(layer, f"{name}_mask")
            return value if mask is None else kept(value, mask)  # LoRA

        def put(layer: Any, value: Any) -> None:
            vars(layer)[name] = value

        doc = "The stored weight; while the layer computes, the masked tensor."
        super().__init__(get, None if is_property else put, doc=doc)


def _mask(name: str) -> property:
    def get(layer: Any) -> Mask | None:
        return getattr(layer.kernel_masks, f"{name}_mask", None)

    return property(get, doc="What is kept of the weight: bool, or None.")


class _Running(threading.local):
    """The layers whose `call` runs in this thread."""

    def __init__(self) -> None:
        self.layers: list[keras.layers.Layer] = []


_running = _Running()


def computes(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer's `call` runs in this thread."""
    return any(running is layer for running in _running.layers)


def _computing(
    layers_of: Callable[[Any], list[keras.layers.Layer]],
) -> Callable[[Any], Any]:
    """Returns what makes a `call` one in which these layers compute."""

    def extended(call: Any) -> Any:
        def computing(layer: Any, *args: Any, **kwargs: Any) -> Any:
            before = _running.layers
            _running.layers = [*before, *layers_of(layer)]
            try:
                return call(layer, *args, **kwargs)
            finally:
                _running.layers = before

        return computing

    return extended


def _masking(mask: Callable[[Any], None]) -> Callable[[Any], Any]:
    """Returns what makes a `build` one that masks what it has built."""

    def extended(build: Any) -> Any:
        def masking(layer: Any, *args: Any, **kwargs: Any) -> None:
            build(layer, *args, **kwargs)
            mask(layer)

        return masking

    return extended


def _extend(cls: Any, name: str, extend: Callable[[Any], Any]) -> None:
    """Extends a method once, under the signature that Keras reads."""
    method = getattr(cls, name)
    if not hasattr(method, "is_extended"):
        # Keras marks methods that nobody overrides: `updated` drops the mark.
        extended: Any = functools.wraps(method, updated=())(extend(method))
        extended.is_extended = True
        setattr(cls, name, extended)


def _mask_kernels(layer: keras.layers.Layer) -> None:
    chosen = _masked_weights(layer)
    for name in stored_kernels(layer):
        if not chosen or name in chosen:
            mask_weight(layer, name)


def _mask_parts(layer: keras.layers.Layer) -> None:
    for part in layer._flatten_layers(include_self=False):
        _mask_kernels(part)


def _masked_weights(layer: keras.layers.Layer) -> tuple[str, ...]:
    return getattr(layer, "masked_weights", ())


def stored_kernels(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """Returns the kernels of a built layer as they are stored, unmasked.

    Returns:
        The attribute by which the layer's code reads each, to the kernel.
        Quantised ones are integers, and no kernels any more.
    """
    known = (KERNELS[cls] for cls in type(layer).__mro__ if cls in KERNELS)
    names = dict.fromkeys((*next(known, ()), *_masked_weights(layer)))
    own = vars(layer)
    found = {name: own.get(name, own.get(f"_{name}")) for name in names}
    return {
        name: weight
        for name, weight in found.items()
        if isinstance(weight, keras.Variable)
    }


def attributes_of(
    layer: keras.layers.Layer, variable: keras.Variable
) -> list[str]:
    """Returns the attributes by which a layer's code reads a variable."""
    held = [name for name, value in vars(layer).items() if value is variable]
    return [
        name.removeprefix("_")
        if isinstance(getattr(type(layer), name[1:], None), property)
        else name
        for name in held
    ]


def mask_weight(layer: keras.layers.Layer, name: str) -> None:
    """Gives a weight of a built layer a mask that keeps all, in place.

    Args:
        layer: A layer, masked or not.
        name: The attribute by which its code reads the weight, as
            `attributes_of` says.
    """
    names = _masked_weights(layer)
    if name not in names:
        plain: Any = plain_class(type(layer))
        layer.__class__ = plain
        names = (*names, name)
        if plain in CATALOGUE and {*names} == {*stored_kernels(layer)}:
            layer.__class__ = CATALOGUE[plain]
        else:
            layer.__class__ = named_class(plain, names)
    if vars(layer).get("kernel_masks") is None:
        # Built layers take no more layers; Keras' own `enable_lora` does this.
        is_locked = layer._tracker.locked
        layer._tracker.unlock()
        layer.kernel_masks = KernelMasks()
        # TensorFlow finds it, Keras lists none of it among the weights.
        layer._tracker.untrack(layer.kernel_masks)
        if is_locked:  # else the `build` of a subclass goes on
            layer._lock_state()
        # On the layer, where Keras puts the method that it wraps.
        vars(layer)["plain_quantize"] = layer.quantize
        vars(layer)["quantize"] = functools.partial(_refuse, layer.name)
    if getattr(layer, f"{name}_mask") is None:
        own = vars(layer)
        layer.kernel_masks.add(name, own.get(name, own.get(f"_{name}")))


def _refuse(name: str, *args: Any, **kwargs: Any) -> None:
    del args, kwargs
    raise UserError(
        f"Layer {name!r} is masked and cannot be quantised: quantise "
        "strip_masks(model), whose pruned weights are zeros and stay zeros."
    )


def copy_masks(source: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Gives a built layer the masks of another one like it, in place."""
    for name in _masked_weights(source):
        mask = getattr(source, f"{name}_mask")
        if mask is not None:
            mask_weight(layer, name)
            getattr(layer, f"{name}_mask").assign(mask)
    if isinstance(source, MaskedParts) and type(layer) in CATALOGUE:
        layer.__class__ = CATALOGUE[type(layer)]


def mask_kind(layer: keras.layers.Layer) -> None:
    """Makes a layer whose parts are masked file them as masked, in place."""
    if type(layer) in WITH_PARTS and any(
        vars(part).get("kernel_masks") for part in layer._flatten_layers()
    ):
        layer.__class__ = CATALOGUE[type(layer)]


def unmask_layer(layer: keras.layers.Layer) -> None:
    """Makes a masked layer the plain one, pruned weights at zero, in place."""
    masks = vars(layer).get("kernel_masks")
    if masks is not None:
        for mask in masks.masks().values():
            unmask_variable(mask.weight)
        del layer.kernel_masks
        vars(layer)["quantize"] = vars(layer).pop("plain_quantize")
    if isinstance(layer, MaskedKernel | MaskedParts):
        layer.__class__ = plain_class(type(layer))


def plain_class(cls: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Returns the class that a masked class is the masked form of."""
    mixins = (FiledByName, MaskedKernel, MaskedParts)
    return next(c for c in cls.__mro__ if not issubclass(c, mixins))


@functools.cache
def named_class(
    plain: type[keras.layers.Layer], names: tuple[str, ...]
) -> type[keras.layers.Layer]:
    """Returns the form of a layer's class that masks weights by their names."""
    bases = (FiledByName, MaskedKernel, plain)
    cls = _subclass(bases, plain.__qualname__, names)
    cls.__module__ = plain.__module__
    name = FiledByName.__name__
    for each in (cls, FiledByName):  # all have its name in files; it loads
        keras.saving.register_keras_serializable(_PACKAGE, name)(each)
    return cls


def _subclass(
    bases: tuple[type, ...], qualname: str, names: tuple[str, ...]
) -> type[keras.layers.Layer]:
    plain = bases[-1]
    masked = ", ".join(f"`{name}`" for name in names) or "its parts' kernels"
    content = {
        "masked_weights": names,
        "__qualname__": qualname,
        "__module__": __name__,
        "__doc__": f"`{plain.__name__}` with masks on {masked}.\n\n"
        "    Masks of ones give the plain layer, bit for bit. Takes its "
        "arguments.\n    ",
    }
    return type(plain.__name__, bases, content)


def _masked(
    mixin: type, plain: type[keras.layers.Layer], *names: str
) -> type[keras.layers.Layer]:
    name = f"Masked{plain.__name__}"
    return _filed(_subclass((mixin, plain), name, names))


def _filed(cls: Any) -> Any:
    """Files a masked class under its own name, its weights as the plain one."""
    keras.saving.register_keras_serializable(_PACKAGE, cls.__qualname__)(cls)
    cls.__name__ = plain_class(cls).__name__
    return cls


@_filed
class MaskedDense(MaskedKernel, keras.layers.Dense):
    """`Dense` with masks on `kernel`.

    It computes `activation(inputs @ where(kernel_mask, kernel, 0) + bias)`. A
    mask of ones, with which it begins, gives `Dense`, bit for bit.

    Args:
        *args: The arguments of `keras.layers.Dense`.
        **kwargs: Its keyword arguments.

    Input shape:
        `(batch, ..., features)`, at least two dimensions.

    Output shape:
        `(batch, ..., units)`.

    Weights:
        kernel: `(features, units)`, trainable; zero where pruned.
        bias: `(units,)`, trainable; None without `use_bias`.
        kernel_mask: `(features, units)`, bool, not trainable and not listed in
            `weights`; False where pruned. None before the layer is built.
    """


@_filed
class MaskedConv2D(MaskedKernel, keras.layers.Conv2D):
    """`Conv2D` with masks on `kernel`.

    It convolves with `where(kernel_mask, kernel, 0)`. A mask of ones, with
    which it begins, gives `Conv2D`, bit for bit.

    Args:
        *args: The arguments of `keras.layers.Conv2D`.
        **kwargs: Its keyword arguments.

    Input shape:
        `(batch, height, width, channels)`; with
        `data_format="channels_first"`: `(batch, channels, height, width)`.

    Output shape:
        `(batch, new_height, new_width, filters)`; with
        `data_format="channels_first"`:
        `(batch, filters, new_height, new_width)`.

    Weights:
        kernel: `(*kernel_size, channels / groups, filters)`, trainable; zero
            where pruned.
        bias: `(filters,)`, trainable; None without `use_bias`.
        kernel_mask: The shape of `kernel`, bool, not trainable and not listed
            in `weights`; False where pruned. None before the layer is built.
    """


KERNELS: dict[type[keras.layers.Layer], tuple[str, ...]] = {
    L.Dense: ("kernel",),
    L.EinsumDense: ("kernel",),
    L.Conv1D: ("kernel",),
    L.Conv2D: ("kernel",),
    L.Conv3D: ("kernel",),
    L.Conv1DTranspose: ("kernel",),
    L.Conv2DTranspose: ("kernel",),
    L.Conv3DTranspose: ("kernel",),
    L.DepthwiseConv1D: ("kernel",),
    L.DepthwiseConv2D: ("kernel",),
    L.SeparableConv1D: ("depthwise_kernel", "pointwise_kernel"),
    L.SeparableConv2D: ("depthwise_kernel", "pointwise_kernel"),
    L.Embedding: ("embeddings",),
    L.ReversibleEmbedding: ("embeddings", "reverse_embeddings"),
    L.SimpleRNNCell: ("kernel", "recurrent_kernel"),
    L.LSTMCell: ("kernel", "recurrent_kernel"),
    L.GRUCell: ("kernel", "recurrent_kernel"),
    ConvLSTMCell: ("kernel", "recurrent_kernel"),
}
"""Layer to the attributes by which its code reads its kernels."""

WITH_PARTS: tuple[type[keras.layers.Layer], ...] = (
    L.MultiHeadAttention,
    L.GroupQueryAttention,
    L.SimpleRNN,
    L.LSTM,
    L.GRU,
    L.ConvLSTM1D,
    L.ConvLSTM2D,
    L.ConvLSTM3D,
)
"""Layers that make layers with kernels which no configuration names."""

_WRITTEN_OUT = {L.Dense: MaskedDense, L.Conv2D: MaskedConv2D}

CATALOGUE: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    **{
        cls: _WRITTEN_OUT.get(cls) or _masked(MaskedKernel, cls, *names)
        for cls, names in KERNELS.items()
    },
    **{cls: _masked(MaskedParts, cls) for cls in WITH_PARTS},
}
"""Plain layer to its masked form."""

# Pickles find a class by its name in its module.
globals().update({cls.__qualname__: cls for cls in CATALOGUE.values()})
