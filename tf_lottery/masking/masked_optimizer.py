"""This module knows how an optimizer keeps pruned weights at zero."""

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
    """Returns the optimizer, made to keep pruned weights at exactly zero.

    For models and training loops that are not ours to rewrite: subclassed
    models, a `train_step` of one's own, a `GradientTape` loop. Before every
    step gradients of pruned weights are set to zero, ahead of clipping and of
    the optimizer's slots, and after it the weights themselves. The optimizer
    saves and loads as what it was.

    Args:
        optimizer: A Keras optimizer. It is changed in place: masked from its
            first step on.
        masks: Kernel path to mask.
        model: The model the paths are of, if it is built already. Without it
            a path is that of Keras, `variable.path` or the end of it, which
            holds numbers that count per process.

    Returns:
        The same object.

    Raises:
        TypeError: It is no Keras 3 optimizer.
        ValueError: A mask fits no variable, or more than one. Without a model
            this shows only when the optimizer is built.
    """
    _enable(optimizer)
    known = {}
    if model is not None:
        variables = paths.variables_by_path(model)
        masks.require({p: v.shape for p, v in variables.items() if p in masks})
        known = {path: variables[path] for path in masks}
        for path, variable in known.items():
            # Now, not at the first step: its gradient is the masked net's.
            project(variable, masks[path])
    optimizer.__dict__["_wanted_masks"] = (masks, known)
    if optimizer.built:
        optimizer._bind_wanted_masks(fresh=not int(optimizer.iterations))
    return optimizer


def bind(
    optimizer: keras.optimizers.Optimizer,
    pairs: Iterable[_Pair],
    fresh: bool = True,
) -> dict[int, tf.Variable]:
    """Masks a built optimizer's variables and returns the mask variables.

    Args:
        optimizer: A built optimizer.
        pairs: Variables, and their masks as bool arrays of the same shape.
        fresh: Whether it has not trained yet. Slots of a fresh optimizer may
            begin above zero, and are left to it; else pruned ones are zeroed.

    Returns:
        `id(variable)` to its mask, a bool `tf.Variable`: assigning to it
        changes the mask without a new trace. The weights are projected once.
    """
    _enable(optimizer)
    masks = {}
    bound = optimizer.__dict__.setdefault("_bound_masks", {})
    slots = {} if fresh else _slots_of_each(optimizer)
    with tf.init_scope():
        for variable, mask in pairs:
            key = optimizer._var_key(variable)
            if key in bound:  # programs that are compiled already hold it
                bound[key].assign(mask)
            else:
                bound[key] = tf.Variable(mask, trainable=False, dtype=bool)
            masks[id(variable)] = bound[key]
            for array in (variable, *slots.get(id(variable), ())):
                project(array, mask)
    return masks


def forget(optimizer: Any, pairs: Iterable[_Pair]) -> None:
    """Sets what an optimizer remembers of pruned weights to zero.

    Args:
        optimizer: The optimizer. One that is not built, or None, remembers
            nothing.
        pairs: Variables, and their masks as bool arrays of the same shape.
    """
    if optimizer is None or not optimizer.built:
        return
    if not int(optimizer.iterations):  # its slots may begin above zero
        return
    slots = _slots_of_each(optimizer)
    for variable, mask in pairs:
        for slot in slots.get(id(variable), ()):
            project(slot, mask)


def slots_by_name(
    optimizer: keras.optimizers.Optimizer,
    variables: Mapping[str, keras.Variable],
) -> dict[str, keras.Variable]:
    """Returns the variables of a built optimizer by names that do not wander.

    Keras names a slot after the raw path of its weight, which holds numbers
    that count per process; here it is named after the path.

    Args:
        optimizer: The built optimizer.
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
        # Without a name of its own, Keras counts it per process: Nadam's.
        name = re.sub(r"^variable_\d+$", "variable", slot.name)
        # A wrapper and the optimizer inside have an iteration each.
        names += [name, f"inner/{name}"]
        free = next(name for name in names if name not in slots)
        slots[free] = slot
    return slots


def _slots_of_each(
    optimizer: keras.optimizers.Optimizer,
) -> dict[int, list[keras.Variable]]:
    variables = {
        str(i): v for i, v in enumerate(optimizer._trainable_variables)
    }
    found: dict[int, list[keras.Variable]] = {}
    for name, slot in slots_by_name(optimizer, variables).items():
        owner = variables.get(name.partition("/")[0])
        if owner is not None:
            found.setdefault(id(owner), []).append(slot)
    return found


def match_masks(
    masks: Masks, variables: Sequence[keras.Variable]
) -> list[_Pair]:
    """Returns each mask with the variable its path means.

    Raises:
        ValueError: A mask fits no variable, or more than one.
    """
    pairs: list[_Pair] = []
    taken: dict[int, str] = {}
    for path, mask in masks.items():
        # With the model's name before it, or without.
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
    # Name and module of the plain class: it saves, and loads, as that.
    names = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    optimizer.__class__ = type(cls.__name__, (_Masked, cls), names)


class _Masked:
    """Masks gradients before a Keras optimizer's step, weights after it.

    Files and pickles give back the plain optimizer.

    The masks live in `__dict__`, out of sight of Keras' tracking: they are no
    state of the optimizer and must not enter its checkpoints.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        parent: Any = super()
        load, arguments = parent.__reduce__()
        classes = type(self).__mro__
        plain = next(c for c in classes if not issubclass(c, _Masked))
        return types.MethodType(load.__func__, plain), arguments

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)  # type: ignore[misc]
        self._bind_wanted_masks(fresh=True)

    def _bind_wanted_masks(self, fresh: bool) -> None:
        wanted, known = self.__dict__.pop("_wanted_masks", (None, None))
        if wanted is None:
            return
        variables = self._trainable_variables  # type: ignore[attr-defined]
        pairs = [(known[path], mask) for path, mask in wanted.items() if known]
        bind(self, pairs or match_masks(wanted, variables), fresh)

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Masks the gradients, applies them, projects the weights."""
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
            _keep(variable.value, mask)
            if self.use_ema:  # type: ignore[attr-defined]
                # Averaged before the projection, by Keras; tests pin the name.
                index = self._get_variable_index(variable)  # type: ignore
                averages = self._model_variables_moving_average  # type: ignore
                _keep(averages[index].value, mask)

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


def _keep(variable: tf.Variable, mask: tf.Variable) -> None:
    value = tf.convert_to_tensor(variable)
    variable.assign(tf.where(mask, value, tf.zeros_like(value)))


def project(variable: keras.Variable, mask: np.ndarray) -> None:
    """Sets the pruned weights of a variable to zero."""
    value = variable.numpy()
    # A variable that a `tf.function` makes is empty until the function runs,
    # and masked by its first step.
    if value.shape == mask.shape:
        variable.assign(np.where(mask, value, np.zeros_like(value)))
