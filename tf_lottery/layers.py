"""This module knows how a Keras layer carries masks on its kernels."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import keras

# Public by its layers only; making one would draw from Python's generator.
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

_PACKAGE = "tf_lottery"
L = keras.layers


class MaskedKernel:
    """Gives a Keras layer masks on weights it reads as attributes.

    The layer computes with `where(mask, kernel, 0)`, so a pruned weight takes
    no part in the forward pass and gets a gradient of exactly zero, whatever
    trains the layer. `where`, not a product: 0 * inf is nan. After every step
    the stored weight is set to zero where it is pruned: Muon mixes entries,
    and momentum from before the mask still pushes.

    Mix in before the layer, and name what to mask:

        class MaskedMine(MaskedKernel, Mine):
            masked_weights = ("w",)

    The mask of `w` is the layer's `w_mask`, bool, a weight that nothing
    trains. Keras files weights under a class' `__name__`; where that is the
    plain layer's, as in the `CATALOGUE`, files of weights of plain and masked
    models load into each other.
    """

    masked_weights: ClassVar[tuple[str, ...]] = ("kernel",)
    kernel_masks: "KernelMasks | None" = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes the masked weights properties."""
        super().__init_subclass__(**kwargs)
        for name in cls.masked_weights:
            plain = getattr(super(cls, cls), name, None)
            setattr(cls, name, _weight(name, plain))
            setattr(cls, f"{name}_mask", _mask(name))
        cls.build = _then(super(cls, cls).build, _mask_kernels)  # type: ignore

    def save_own_variables(self, store: Any) -> None:
        """Saves what the plain layer saves, pruned weights at zero."""
        if self.kernel_masks is not None:
            self.kernel_masks.project()
        super().save_own_variables(store)  # type: ignore[misc]

    def load_own_variables(self, store: Any) -> None:
        """Loads what the plain layer loads, and keeps the masks there are."""
        masked = type(self)
        # Keras assigns to weights by the names that are properties here.
        self.__class__ = plain_class(masked)
        try:
            self.load_own_variables(store)
        finally:
            self.__class__ = masked
        if self.kernel_masks is not None:
            self.kernel_masks.project()


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
    parts' own.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Masks the parts as soon as they are built."""
        super().__init_subclass__(**kwargs)
        cls.build = _then(super(cls, cls).build, _mask_parts)  # type: ignore


class KernelMasks(keras.layers.Layer):
    """The masks of one layer, beside its weights.

    A layer of its own, so that Keras files them in a group of their own,
    which the plain layer does not look into and may be missing.
    """

    def __init__(self) -> None:
        super().__init__(name="kernel_masks", dtype="float32")
        self.built = True
        pairs: dict[str, tuple[keras.Variable, keras.Variable]] = {}
        # A function: Keras would track the weights as this layer's own.
        self._pairs = lambda: pairs

    def add(self, name: str, weight: keras.Variable) -> None:
        """Gives a weight a mask that keeps all of it."""
        self._tracker.unlock()
        mask = self.add_weight(
            name=f"{name}_mask",
            shape=weight.shape,
            dtype="bool",
            initializer="ones",
            trainable=False,
        )
        self._lock_state()
        weight.constraint = _Masked(weight.constraint, mask)
        self._pairs()[name] = weight, mask

    def get(self, name: str) -> keras.Variable | None:
        """Returns the mask of a weight, or None if it has none."""
        return self._pairs().get(name, (None, None))[1]

    def pairs(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """Returns the weights as they are stored, each with its mask."""
        return list(self._pairs().values())

    def project(self) -> None:
        """Sets pruned weights to zero where they are stored."""
        for weight, mask in self.pairs():
            weight.assign(_kept(weight, mask))

    def release(self) -> None:
        """Sets pruned weights to zero, and lets go of them."""
        self.project()
        for weight, _ in self.pairs():
            weight.constraint = weight.constraint.inner

    def save_own_variables(self, store: Any) -> None:
        """Saves the masks under their names."""
        for _, mask in self.pairs():
            store[mask.name] = mask

    def load_own_variables(self, store: Any) -> None:
        """Loads the masks that the file has, and projects the weights."""
        for _, mask in self.pairs():
            if mask.name in store.keys():  # noqa: SIM118, h5py has keys only
                mask.assign(store[mask.name])
        self.project()


class _Masked(keras.constraints.Constraint):
    """A weight's constraint, then its mask; optimizers apply it last."""

    def __init__(self, inner: Any, mask: keras.Variable) -> None:
        self.inner, self._mask = inner, mask

    def __call__(self, w: Any) -> Any:
        return _kept(w if self.inner is None else self.inner(w), self._mask)


def _kept(weight: Any, mask: keras.Variable) -> Any:
    value = keras.ops.convert_to_tensor(weight)
    return keras.ops.where(mask, value, keras.ops.zeros_like(value))


def _weight(name: str, plain: Any) -> property:
    is_property = isinstance(plain, property)

    def get(layer: Any) -> Any:
        if not is_property and name not in vars(layer):
            raise AttributeError(
                f"You must build the layer before accessing `{name}`."
            )
        value = plain.fget(layer) if is_property else vars(layer)[name]
        mask = getattr(layer, f"{name}_mask")
        return value if mask is None else _kept(value, mask)

    def put(layer: Any, value: Any) -> None:
        vars(layer)[name] = value

    doc = "The weight with pruned entries at zero, as the layer uses it."
    return property(get, None if is_property else put, doc=doc)


def _mask(name: str) -> property:
    def get(layer: Any) -> keras.Variable | None:
        masks = vars(layer).get("kernel_masks")
        return None if masks is None else masks.get(name)

    return property(get, doc="What is kept of the weight: bool, or None.")


def _then(build: Any, mask: Callable[[Any], None]) -> Any:
    """Returns a `build` that masks, under the signature that Keras reads."""

    @functools.wraps(build, updated=())
    def masked(layer: Any, *args: Any, **kwargs: Any) -> None:
        build(layer, *args, **kwargs)
        mask(layer)

    return masked


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
        layer._tracker.unlock()
        layer.kernel_masks = KernelMasks()
        layer._lock_state()
        # On the layer, where Keras puts the method that it wraps.
        vars(layer)["plain_quantize"] = layer.quantize
        vars(layer)["quantize"] = functools.partial(_refuse, layer.name)
    if layer.kernel_masks.get(name) is None:
        own = vars(layer)
        layer.kernel_masks.add(name, own.get(name, own.get(f"_{name}")))


def _refuse(name: str, *args: Any, **kwargs: Any) -> None:
    del args, kwargs
    raise ValueError(
        f"Layer {name!r} is masked and cannot be quantised: quantise "
        "strip_masks(model), whose pruned weights are zeros and stay zeros."
    )


def copy_masks(source: keras.layers.Layer, layer: keras.layers.Layer) -> None:
    """Gives a built layer the masks of another one like it, in place."""
    for name in _masked_weights(source):
        mask = source.kernel_masks.get(name)
        if mask is not None:
            mask_weight(layer, name)
            layer.kernel_masks.get(name).assign(mask)
    if isinstance(source, MaskedParts) and type(layer) in CATALOGUE:
        layer.__class__ = CATALOGUE[type(layer)]


def mask_kind(layer: keras.layers.Layer) -> None:
    """Makes a layer whose parts are masked file them as masked, in place."""
    if type(layer) in WITH_PARTS and any(
        isinstance(part, KernelMasks) for part in layer._flatten_layers()
    ):
        layer.__class__ = CATALOGUE[type(layer)]


def unmask_layer(layer: keras.layers.Layer) -> None:
    """Makes a masked layer the plain one, pruned weights at zero, in place."""
    masks = vars(layer).get("kernel_masks")
    if masks is not None:
        masks.release()
        layer._tracker.unlock()
        layer._tracker.untrack(masks)
        del layer.kernel_masks
        layer._lock_state()
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
    cls = _subclass((mixin, plain), name, names)
    keras.saving.register_keras_serializable(_PACKAGE, name)(cls)
    return cls


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

CATALOGUE: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    **{cls: _masked(MaskedKernel, cls, *n) for cls, n in KERNELS.items()},
    **{cls: _masked(MaskedParts, cls) for cls in WITH_PARTS},
}
"""Plain layer to its masked form."""

MaskedDense = CATALOGUE[L.Dense]
MaskedConv2D = CATALOGUE[L.Conv2D]
