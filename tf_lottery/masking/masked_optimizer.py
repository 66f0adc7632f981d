"""Optimizers that keep pruned weights at zero."""

import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError, UserTypeError
from tf_lottery.core.masks import Masks
from tf_lottery.masking import paths

_Pair = tuple[keras.Variable, np.ndarray]


def masked_optimizer(
    optimizer: keras.optimizers.Optimizer,
    masks: Masks,
    model: keras.Model | None = None,
) -> keras.optimizers.Optimizer:
    """Changes an optimizer so that it keeps pruned weights at exactly zero.

    Use it where layers cannot be masked: subclassed models, a custom
    `train_step`, a `GradientTape` loop. Each step first sets gradients of
    pruned weights to zero, before clipping and before the optimizer updates
    its slots, and finally sets the weights to zero. The optimizer saves and
    loads as its plain class.

    Args:
        optimizer: A Keras optimizer. It is changed in place and masks from its
            next step on.
        masks: Kernel path to mask.
        model: The model whose variables the paths name, if it is built
            already. Without it a path is `variable.path` of Keras, with or
            without the model's name; its numbers count per process.

    Returns:
        The same object.

    Raises:
        UserTypeError: It is not a Keras 3 optimizer.
        UserError: A mask fits no variable, or more than one. Without a model
            this is raised only when the optimizer is built.
    """
    _enable(optimizer)
    known = {}
    if model is not None:
        variables = paths.variables_by_path(model)
        masks.require({p: v.shape for p, v in variables.items() if p in masks})
        known = {path: variables[path] for path in masks}
        for path, variable in known.items():
            # Now, so that the first gradient is that of the masked network.
            project(variable, masks[path])
    optimizer.__dict__["_pending_masks"] = (masks, known)
    if optimizer.built:
        optimizer._bind_pending_masks(fresh=not int(optimizer.iterations))
    return optimizer


def bind(
    optimizer: keras.optimizers.Optimizer,
    pairs: Iterable[_Pair],
    fresh: bool = True,
) -> dict[int, tf.Variable]:
    """Gives a built optimizer masks for its variables.

    Pruned weights are set to zero once.

    Args:
        optimizer: A built optimizer.
        pairs: Variables, each with its mask, a bool array of the same shape.
        fresh: Whether the optimizer has not trained yet. Its slots may then
            start above zero and are left alone; otherwise pruned entries of
            slots are set to zero.

    Returns:
        `id(variable)` to its mask, a bool `tf.Variable`: assigning to it
        changes the mask without a new trace.
    """
    _enable(optimizer)
    masks = {}
    bound = optimizer.__dict__.setdefault("_bound_masks", {})
    slots = {} if fresh else _slots_by_variable(optimizer)
    with tf.init_scope():
        for variable, mask in pairs:
            key = optimizer._var_key(variable)
            if key in bound:  # a compiled step may read it
                bound[key].assign(mask)
            else:
                bound[key] = tf.Variable(mask, trainable=False, dtype=bool)
            masks[id(variable)] = bound[key]
            for array in (variable, *slots.get(id(variable), ())):
                project(array, mask)
    return masks


def zero_pruned_slots(optimizer: Any, pairs: Iterable[_Pair]) -> None:
    """Sets the slots of pruned weights to zero.

    Args:
        optimizer: An optimizer or None. Without slots nothing is changed.
        pairs: Variables, each with its mask, a bool array of the same shape.
    """
    if optimizer is None or not optimizer.built:
        return
    if not int(optimizer.iterations):  # its slots may start above zero
        return
    slots = _slots_by_variable(optimizer)
    for variable, mask in pairs:
        for slot in slots.get(id(variable), ()):
            project(slot, mask)


def slots_by_name(
    optimizer: keras.optimizers.Optimizer,
    variables: Mapping[str, keras.Variable],
) -> dict[str, keras.Variable]:
    """Returns the optimizer's variables by names that are stable.

    Keras names a slot after the Keras path of its weight, whose numbers count
    per process. The stable name starts with the path in `variables`.

    Args:
        optimizer: A built optimizer.
        variables: The model's variables by path.
    """
    slots: dict[str, keras.Variable] = {}
    for slot in optimizer.variables:
        owners = [
            path
            for path, variable in variables.items()
            if slot.name.startswith(variable.path.replace("/", "_") + "_")
            and slot.shape == variable.shape
        ]
        owners.sort(key=lambda path: -len(variables[path].path))
        names = [
            f"{path}/{slot.name[len(variables[path].path) + 1 :]}"
            for path in owners
        ]
        # Keras numbers a slot without a name per process: Nadam has one.
        name = re.sub(r"^variable_\d+$", "variable", slot.name)
        # A wrapper and the optimizer inside both have `iteration`.
        names += [name, f"inner/{name}"]
        unused = next(name for name in names if name not in slots)
        slots[unused] = slot
    return slots


def _slots_by_variable(
    optimizer: keras.optimizers.Optimizer,
) -> dict[int, list[keras.Variable]]:
    variables = {
        str(i): v for i, v in enumerate(optimizer._trainable_variables)
    }
    slots: dict[int, list[keras.Variable]] = {}
    for name, slot in slots_by_name(optimizer, variables).items():
        owner = variables.get(name.partition("/")[0])
        if owner is not None:
            slots.setdefault(id(owner), []).append(slot)
    return slots


def match_masks(
    masks: Masks, variables: Sequence[keras.Variable]
) -> list[_Pair]:
    """Returns each mask with the variable that its path names.

    Args:
        masks: Keras path to mask, with or without the model's name.
        variables: The variables of an optimizer.

    Raises:
        UserError: A mask fits no variable, or more than one.
    """
    pairs: list[_Pair] = []
    taken: dict[int, str] = {}
    for path, mask in masks.items():
        fits = [
            v
            for v in variables
            if path in (v.path, v.path.partition("/")[2])
            and tuple(v.shape) == mask.shape
        ]
        if len(fits) != 1 or id(fits[0]) in taken:
            known = ", ".join(f"{v.path} {tuple(v.shape)}" for v in variables)
            raise UserError(
                f"It is not clear which variable the mask of {path!r}, shape "
                f"{mask.shape}, is for: {known}. Give the model too: "
                "masked_optimizer(optimizer, masks, model)."
            )
        taken[id(fits[0])] = path
        pairs.append((fits[0], mask))
    return pairs


def _enable(optimizer: keras.optimizers.Optimizer) -> None:
    cls = type(optimizer)
    if issubclass(cls, _Masked):
        return
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise UserTypeError(
            "A Keras 3 optimizer is needed; got "
            f"{cls.__module__}.{cls.__qualname__}."
        )
    # With name and module of the plain class it saves and loads as that.
    names = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    optimizer.__class__ = type(cls.__name__, (_Masked, cls), names)


class _Masked:
    """Masks gradients before a Keras optimizer's step, and weights after it.

    Files and pickles load as the plain optimizer.

    The masks are in `__dict__`, which Keras does not track, because they must
    not be in the optimizer's checkpoints.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        parent: Any = super()
        load, arguments = parent.__reduce__()
        classes = type(self).__mro__
        plain = next(c for c in classes if not issubclass(c, _Masked))
        return types.MethodType(load.__func__, plain), arguments

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)  # type: ignore[misc]
        self._bind_pending_masks(fresh=True)

    def _bind_pending_masks(self, fresh: bool) -> None:
        masks, known = self.__dict__.pop("_pending_masks", (None, None))
        if masks is None:
            return
        variables = self._trainable_variables  # type: ignore[attr-defined]
        pairs = [(known[path], mask) for path, mask in masks.items() if known]
        bind(self, pairs or match_masks(masks, variables), fresh)

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Masks the gradients, applies them, sets pruned weights to zero."""
        if trainable_variables is None:
            trainable_variables = self._trainable_variables  # type: ignore
        variables = list(trainable_variables)
        if not self.built:  # type: ignore[attr-defined]
            self.build(variables)
        masks = [self._mask(v) for v in variables]
        grads = [
            _masked_gradient(g, m) for g, m in zip(grads, masks, strict=True)
        ]
        super().apply(grads, variables)  # type: ignore[misc]
        for variable, mask in zip(variables, masks, strict=True):
            if mask is None:
                continue
            _assign_masked(variable.value, mask)
            if self.use_ema:  # type: ignore[attr-defined]
                # Keras has averaged the weights before they were masked.
                # Tests pin this private name.
                index = self._get_variable_index(variable)  # type: ignore
                averages = self._model_variables_moving_average  # type: ignore
                _assign_masked(averages[index].value, mask)

    def _mask(self, variable: keras.Variable) -> tf.Variable | None:
        bound = self.__dict__.get("_bound_masks", {})
        return bound.get(self._var_key(variable))  # type: ignore[attr-defined]


def _masked_gradient(gradient: Any, mask: tf.Variable | None) -> Any:
    if gradient is None or mask is None:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        rows = tf.gather(mask, gradient.indices)
        values = gradient.values
        return tf.IndexedSlices(
            tf.where(rows, values, tf.zeros_like(values)),
            gradient.indices,
            gradient.dense_shape,
        )
    return tf.where(mask, gradient, tf.zeros_like(gradient))


def _assign_masked(variable: tf.Variable, mask: tf.Variable) -> None:
    value = tf.convert_to_tensor(variable)
    variable.assign(tf.where(mask, value, tf.zeros_like(value)))


def project(variable: keras.Variable, mask: np.ndarray) -> None:
    """Sets the pruned weights of a variable to zero.

    Args:
        variable: A variable.
        mask: A bool array of its shape.
    """
    value = variable.numpy()
    # A variable created in a `tf.function` is empty until the function runs;
    # its first step masks it.
    if value.shape == mask.shape:
        variable.assign(np.where(mask, value, np.zeros_like(value)))
