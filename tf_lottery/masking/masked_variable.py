"""Keras variables whose pruned entries stay at zero."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Keras has no public way to ask whether an optimizer is applying gradients;
# tests/masking/test_layers.py pins this one.
from keras.src.backend.common import global_state


class MaskedVariable(keras.Variable):
    """A weight with a mask. It is zero where the mask is False.

    Assigning to the weight, restoring it from a checkpoint and changing the
    mask all set pruned entries to zero. Some code of Keras and TensorFlow
    writes directly to the `tf.Variable` in `value`: optimizers, whose step
    ends with an `assign`, and the swap of weights with their moving averages.
    NumPy, TensorFlow and files read zeros at the pruned entries even then.

    Do not construct it: `mask_variable` converts a variable of a built layer.
    """

    mask: "Mask"

    def masked_value(self) -> tf.Tensor:
        """Returns the value with zeros at the pruned entries.

        Pruned entries get a gradient of exactly zero. This uses `where`, not a
        product, because 0 * inf is nan.
        """
        return apply_mask(self.value, self.mask)

    def project(self) -> None:
        """Sets pruned entries to zero where they are stored."""
        self.assign(self)

    def assign(self, value: Any) -> Any:
        """Assigns the value, with zeros at the pruned entries.

        Args:
            value: An array of the weight's shape.
        """
        if value is self:
            value = self.value
        value = keras.ops.convert_to_tensor(value, self._dtype)
        # For another shape Keras raises an error.
        if tuple(value.shape) == tuple(self.shape):
            value = apply_mask(value, self.mask)
        return super().assign(value)

    def numpy(self) -> np.ndarray:
        """Returns the value with zeros at the pruned entries."""
        return self.masked_value().numpy()

    def __array__(self, dtype: Any = None) -> np.ndarray:
        return np.asarray(self.masked_value(), dtype)

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> tf.Tensor:
        return tf.convert_to_tensor(self.masked_value(), dtype=dtype, name=name)

    def _constraint_now(self) -> Any:
        constraint = keras.Variable.constraint.fget(self)
        if constraint is None and _optimizer_applies():
            return lambda weight: weight
        return constraint

    constraint = keras.Variable.constraint.getter(_constraint_now)
    """The constraint that the layer passed.

    An optimizer assigns to a variable at the end of its step only if the
    variable has a constraint. So an optimizer always sees one.
    """

    def _serialize_to_tensors(self) -> Any:
        if tf.executing_eagerly():
            self.project()
        return super()._serialize_to_tensors()

    def _restore_from_tensors(self, restored_tensors: Any) -> Any:
        restored = super()._restore_from_tensors(restored_tensors)
        self.project()
        return restored


class Mask(keras.Variable):
    """The mask of a variable: bool, False where an entry is pruned.

    Assigning to it sets the pruned entries of its weight to zero. Restoring it
    from a checkpoint prunes the entries that the checkpoint prunes and revives
    none: masks only shrink.
    """

    weight: MaskedVariable

    def assign(self, value: Any) -> Any:
        """Assigns the mask and sets pruned entries of the weight to zero.

        Args:
            value: A bool array of the weight's shape.
        """
        assigned = super().assign(value)
        self.weight.project()
        return assigned

    def shrink(self, other: Any) -> None:
        """Prunes also the entries that another mask prunes.

        Args:
            other: A bool array of the weight's shape.
        """
        self.assign(keras.ops.logical_and(self, other))

    def _restore_from_tensors(self, restored_tensors: Any) -> Any:
        before = tf.identity(self.value)
        restored = super()._restore_from_tensors(restored_tensors)
        self.shrink(before)
        return restored


def become(instance: Any, cls: type) -> None:
    """Changes the class of a variable or layer; it stays the same object."""
    instance.__class__ = cls


def mask_variable(weight: keras.Variable, mask: keras.Variable) -> None:
    """Converts a variable to a masked one, in place.

    Args:
        weight: The variable.
        mask: A bool variable of its shape, which becomes its `Mask`.
    """
    become(mask, Mask)
    become(weight, MaskedVariable)
    mask.weight, weight.mask = weight, mask
    weight.project()


def unmask_variable(weight: keras.Variable) -> None:
    """Converts a masked variable to a plain one, in place.

    Args:
        weight: Any variable. Pruned entries of a masked one become zero.
    """
    if isinstance(weight, MaskedVariable):
        weight.project()
        become(weight, keras.Variable)
        del weight.mask


def apply_mask(value: Any, mask: Any) -> tf.Tensor:
    """Returns a value with zeros where the mask is False.

    Args:
        value: An array or tensor.
        mask: A bool array of its shape.
    """
    value = keras.ops.convert_to_tensor(value)
    return keras.ops.where(mask, value, keras.ops.zeros_like(value))


def _optimizer_applies() -> bool:
    """Returns whether an optimizer is updating variables in this thread."""
    scopes = global_state.get_global_attribute("name_scope_stack")
    return bool(scopes) and isinstance(
        scopes[-1].caller, keras.optimizers.Optimizer
    )
