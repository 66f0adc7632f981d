"""This module knows how an optimizer keeps pruned weights at zero."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.masking import paths
from tf_lottery.masks import Masks

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
            a path is matched to the variables the optimizer is built with: by
            the end of `variable.path`, automatic numbers taken in order.

    Returns:
        The same object.

    Raises:
        TypeError: It is no Keras 3 optimizer.
        ValueError: A mask fits no variable, or more than one. Without a model
            this shows only when the optimizer is built.
    """
    _enable(optimizer)
    known = None if model is None else paths.variables_by_path(model)
    if known is not None:
        masks.require({p: tuple(known[p].shape) for p in masks if p in known})
    optimizer.__dict__["_wanted_masks"] = (masks, known)
    if optimizer.built:
        optimizer._bind_wanted_masks()
    return optimizer


def bind(
    optimizer: keras.optimizers.Optimizer, pairs: Iterable[_Pair]
) -> dict[int, tf.Variable]:
    """Masks a built optimizer's variables and returns the mask variables.

    Args:
        optimizer: A built optimizer.
        pairs: Variables, and their masks as bool arrays of the same shape.

    Returns:
        `id(variable)` to its mask, a bool `tf.Variable`: assigning to it
        changes the mask without a new trace. The weights are projected once.
    """
    _enable(optimizer)
    masks = {}
    bound = optimizer.__dict__.setdefault("_bound_masks", {})
    with tf.init_scope():
        for variable, mask in pairs:
            masks[id(variable)] = tf.Variable(mask, trainable=False, dtype=bool)
            bound[optimizer._var_key(variable)] = masks[id(variable)]
            variable.assign(np.where(mask, variable.numpy(), 0))
    return masks


def match(masks: Masks, variables: Sequence[keras.Variable]) -> list[_Pair]:
    """Returns each mask with the variable its path means.

    Raises:
        ValueError: A mask fits no variable, or more than one.
    """
    pairs = []
    for path, mask in masks.items():
        fits = [v for v in variables if f"/{v.path}".endswith(f"/{path}")]
        if not fits:
            fits = _by_order(path, masks, variables)
        if len(fits) != 1 or tuple(fits[0].shape) != mask.shape:
            known = ", ".join(f"{v.path} {tuple(v.shape)}" for v in variables)
            raise ValueError(
                f"The mask of {path!r}, shape {mask.shape}, fits "
                f"{len(fits) or 'no'} variable of the optimizer: {known}. "
                "Give the model too: masked_optimizer(optimizer, masks, model)."
            )
        pairs.append((fits[0], mask))
    return pairs


def _by_order(
    path: str, masks: Masks, variables: Sequence[keras.Variable]
) -> list[keras.Variable]:
    """Matches `dense_1/kernel` to the second dense layer of the process."""
    alike = sorted(
        (p for p in masks if _unnumbered(p) == _unnumbered(path)), key=_natural
    )
    tail = "/" + _unnumbered(path)
    found = [v for v in variables if f"/{_unnumbered(v.path)}".endswith(tail)]
    if len(found) != len(alike):
        return []
    return [found[alike.index(path)]]


def _unnumbered(path: str) -> str:
    return re.sub(r"_\d+(?=/)", "", path)


def _natural(path: str) -> list[Any]:
    return [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path)]


def _enable(optimizer: keras.optimizers.Optimizer) -> None:
    cls = type(optimizer)
    if issubclass(cls, _Masked):
        return
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
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

    The masks live in `__dict__`, out of sight of Keras' tracking: they are no
    state of the optimizer and must not enter its checkpoints.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)  # type: ignore[misc]
        self._bind_wanted_masks()

    def _bind_wanted_masks(self) -> None:
        wanted, known = self.__dict__.pop("_wanted_masks", (None, None))
        if wanted is not None and known is not None:
            bind(self, [(known[path], mask) for path, mask in wanted.items()])
        elif wanted is not None:
            variables = self._trainable_variables  # type: ignore[attr-defined]
            bind(self, match(wanted, variables))

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
            if mask is not None:
                value = tf.convert_to_tensor(variable.value)
                variable.assign(tf.where(mask, value, tf.zeros_like(value)))

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
