"""This module knows how a Keras layer carries a mask on its kernel."""

from typing import Any

import keras

_PACKAGE = "tf_lottery"


class MaskedKernel:
    """Gives a Keras layer with a `kernel` property a mask on that kernel.

    The layer computes with `where(kernel_mask, kernel, 0)`, so a pruned weight
    takes no part in the forward pass and gets a gradient of exactly zero,
    whatever trains the layer. `where`, not a product: 0 * inf is nan.

    Mix in before the layer: `class MaskedDense(MaskedKernel, Dense)`.
    """

    kernel_mask: Any = None

    def build(self, input_shape: Any) -> None:
        """Builds the layer, then the mask, which keeps every weight."""
        super().build(input_shape)  # type: ignore[misc]
        self.kernel_mask = self.add_weight(  # type: ignore[attr-defined]
            name="kernel_mask",
            shape=super().kernel.shape,  # type: ignore[misc]
            dtype="bool",
            initializer="ones",
            trainable=False,
        )

    @property
    def kernel(self) -> Any:
        """The kernel with pruned weights at zero, as the layer uses it."""
        kernel = super().kernel  # type: ignore[misc]
        if self.kernel_mask is None:
            return kernel
        value = keras.ops.convert_to_tensor(kernel)
        return keras.ops.where(
            self.kernel_mask, value, keras.ops.zeros_like(value)
        )

    def save_own_variables(self, store: Any) -> None:
        """Saves what the plain layer saves, pruned weights at zero; the mask.

        Keras' layers name their variables by position and refuse any more, so
        the mask goes under a name of its own.
        """
        super().save_own_variables(store)  # type: ignore[misc]
        if self.kernel_mask is not None:
            store["kernel_mask"] = self.kernel_mask

    def load_own_variables(self, store: Any) -> None:
        """Loads kernel and bias, and the mask where the file has one.

        So the weights of a plain layer load too, and keep the mask there is.
        """
        if self.kernel_mask is None:
            super().load_own_variables(store)  # type: ignore[misc]
            return
        # Keras counts entries against variables, so the mask must stand there.
        entries = {"kernel_mask": self.kernel_mask}
        entries.update((key, store[key]) for key in store.keys())  # noqa: SIM118
        super().load_own_variables(entries)  # type: ignore[misc]
        self.kernel_mask.assign(entries["kernel_mask"])
        super().kernel.assign(self.kernel)  # type: ignore[misc]


@keras.saving.register_keras_serializable(package=_PACKAGE)
class MaskedDense(MaskedKernel, keras.layers.Dense):
    """`keras.layers.Dense` with a mask on its kernel.

    A mask of ones gives the plain layer, bit for bit. Takes the arguments of
    `keras.layers.Dense`.

    Input shape: `(batch, ..., features)`.
    Output shape: `(batch, ..., units)`.
    Weights: `kernel` (features, units), trainable; `bias` (units,),
    trainable; `kernel_mask` (features, units), bool, not trainable.

    Example:
        >>> layer = MaskedDense(1, kernel_initializer="ones")
        >>> layer.build((None, 3))
        >>> _ = layer.kernel_mask.assign([[True], [False], [True]])
        >>> float(layer(keras.ops.ones((1, 3)))[0, 0])
        2.0
    """


@keras.saving.register_keras_serializable(package=_PACKAGE)
class MaskedConv2D(MaskedKernel, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a mask on its kernel.

    A mask of ones gives the plain layer, bit for bit. Takes the arguments of
    `keras.layers.Conv2D`.

    Input shape: `(batch, rows, columns, channels)`.
    Output shape: `(batch, new rows, new columns, filters)`.
    Weights: `kernel` (rows, columns, channels / groups, filters), trainable;
    `bias` (filters,), trainable; `kernel_mask`, shaped as the kernel, bool,
    not trainable.
    """


CATALOGUE: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    keras.layers.Dense: MaskedDense,
    keras.layers.Conv2D: MaskedConv2D,
}
"""Plain layer to its masked form."""
