"""`MaskedDense`, `MaskedConv2D`, and the masked forms of other Keras layers.

How masking of a kernel works:

1. `build` creates the kernel as the plain layer does. `add_masks` then creates
   a bool variable of the same shape, all True: the mask.
2. `add_masks` also changes the class of the kernel to `MaskedVariable`, whose
   `assign` writes zeros at pruned entries. So an optimizer, a callback or a
   checkpoint cannot bring a pruned weight back.
3. TensorFlow converts a `MaskedVariable` to the tensor
   `where(mask, kernel, 0)`, so the plain layer's `call` computes the masked
   output, and the gradient of a pruned weight is exactly zero.

`MaskedDense` and `MaskedConv2D` write this out. The other layers of the
`CATALOGUE` are generated from tables, by their mixin. Their `call`, and that of
subclasses, runs within `masked_reads`, where `layer.kernel` is the masked
tensor itself: Keras' `Variable.__getitem__` and operators such as `*` do not
convert to a tensor first, and recurrent cells slice their kernels.
"""

from typing import Any

import keras

# Public by its layers only; making one would draw from Python's generator.
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from tf_lottery.masking.kernel_masks import add_masks, mask_of
from tf_lottery.masking.masked_layer import (
    MaskedKernel,
    MaskedParts,
    masked_subclass,
    read_weight,
)
from tf_lottery.masking.masked_variable import Mask

PACKAGE = "tf_lottery"
"""The package under which files name the masked layers."""
L = keras.layers


def _filed(cls: Any) -> Any:
    """Files a masked class under its name, its weights as the plain one."""
    keras.saving.register_keras_serializable(PACKAGE, cls.__qualname__)(cls)
    cls.__name__ = cls.__bases__[-1].__name__
    return cls


@_filed
class MaskedDense(MaskedKernel, keras.layers.Dense):
    """`Dense` with masks on `kernel`.

    It computes `activation(inputs @ where(kernel_mask, kernel, 0) + bias)`.
    The mask is all ones at first, which gives `Dense`, bit for bit.

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

    Example:
        >>> layer = MaskedDense(2, kernel_initializer="ones")
        >>> layer.build((None, 2))
        >>> _ = layer.kernel_mask.assign([[True, False], [True, True]])
        >>> layer(keras.ops.array([[1.0, 10.0]])).numpy()
        array([[11., 10.]], dtype=float32)
        >>> layer.kernel.numpy()
        array([[1., 0.],
               [1., 1.]], dtype=float32)
    """

    masked_weights = ("kernel",)

    @property
    def kernel(self) -> Any:
        """The stored variable, which TensorFlow reads masked."""
        return read_weight(self, "kernel", super().kernel)

    @property
    def kernel_mask(self) -> Mask | None:
        """The mask: bool, False where pruned; None before `build`."""
        return mask_of(self, "kernel")

    def build(self, input_shape: Any) -> None:
        """Creates the weights and the mask."""
        super().build(input_shape)
        add_masks(self)


@_filed
class MaskedConv2D(MaskedKernel, keras.layers.Conv2D):
    """`Conv2D` with masks on `kernel`.

    It convolves with `where(kernel_mask, kernel, 0)`. The mask is all ones at
    first, which gives `Conv2D`, bit for bit.

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

    Example:
        >>> layer = MaskedConv2D(1, (1, 2), kernel_initializer="ones")
        >>> layer.build((None, 1, 2, 1))
        >>> _ = layer.kernel_mask.assign([[[[True]], [[False]]]])
        >>> float(layer(keras.ops.array([[[[1.0], [10.0]]]]))[0, 0, 0, 0])
        1.0
    """

    masked_weights = ("kernel",)

    @property
    def kernel(self) -> Any:
        """The stored variable, which TensorFlow reads masked."""
        return read_weight(self, "kernel", super().kernel)

    @property
    def kernel_mask(self) -> Mask | None:
        """The mask: bool, False where pruned; None before `build`."""
        return mask_of(self, "kernel")

    def build(self, input_shape: Any) -> None:
        """Creates the weights and the mask."""
        super().build(input_shape)
        add_masks(self)


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


def _masked(
    mixin: type, plain: type[keras.layers.Layer], names: tuple[str, ...] = ()
) -> type[keras.layers.Layer]:
    qualname = f"Masked{plain.__name__}"
    return _filed(masked_subclass((mixin, plain), names, qualname, __name__))


_WRITTEN_OUT = {L.Dense: MaskedDense, L.Conv2D: MaskedConv2D}

CATALOGUE: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    **{
        cls: _WRITTEN_OUT.get(cls) or _masked(MaskedKernel, cls, names)
        for cls, names in KERNELS.items()
    },
    **{cls: _masked(MaskedParts, cls) for cls in WITH_PARTS},
}
"""Plain layer to its masked form."""

# Pickles find a class by its name in its module.
globals().update({cls.__qualname__: cls for cls in CATALOGUE.values()})
