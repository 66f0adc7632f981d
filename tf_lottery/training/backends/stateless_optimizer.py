"""Keras optimizers whose step is a function of values, on TensorFlow.

Why. Several networks train inside one compiled program, some of them under
`tf.vectorized_map`, and XLA compiles the loop over steps. All need a step
without side effects::

    new_weights, new_slots = stateless_apply(slots, gradients, weights)

Keras has this method, and its JAX trainer calls it. With the TensorFlow
backend it raises ValueError: there `keras.optimizers.Optimizer` inherits from
`TFOptimizer`, whose methods write to `tf.Variable`s through `tf.distribute`.
No public setting turns that off.

How. The generic methods are in `BaseOptimizer`, which needs no backend.
`from_keras` copies an optimizer and gives the copy a class that inherits from
a mixin of this module first and from the optimizer's class second. The mixin
points the overridden methods back at those of `BaseOptimizer`. Assigning
`__class__` (rather than constructing a subclass) keeps whatever `from_config`
built, also for user-defined optimizers. `update_step`, the mathematics of an
optimizer, is not replaced.

Three parts of Keras do not work on values and are written again here. They
compute both outcomes and choose one by `tf.where`, as values assigned inside
a branch of `tf.cond` do not leave it:

* gradient accumulation and overwriting weights by their moving average
  (`_Stateless`);
* Nadam's product of momenta (`_StatelessNadam`);
* loss scaling for float16 (`_StatelessLossScale`).

Risk. Names with a leading underscore are private to Keras (here 3.15). Tests
in `tests/training` compare training with `keras.Model.fit` for optimizers of
each kind, and fail if a later Keras changes what the mixins rely on.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer


def from_keras(optimizer: Any) -> keras.optimizers.Optimizer:
    """Returns a new optimizer whose `stateless_apply` works on TensorFlow.

    Its `stateless_apply(slots, gradients, weights)` returns new weights and
    slots, and can be compiled by XLA and by `tf.vectorized_map`.

    Args:
        optimizer: An optimizer, or what `keras.optimizers.get` takes. Only
            its configuration is read.
    """
    original = keras.optimizers.get(optimizer)
    new = type(original).from_config(original.get_config())
    cls = type(new)
    mixin: type = _Stateless
    if isinstance(new, keras.optimizers.LossScaleOptimizer):
        new.inner_optimizer = from_keras(new.inner_optimizer)
        mixin = _StatelessLossScale
    elif isinstance(new, keras.optimizers.Nadam):
        mixin = _StatelessNadam
    new.__class__ = type(cls.__name__, (mixin, cls), {})
    return new


def averages(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Returns the moving average of each weight; empty without EMA.

    Args:
        optimizer: A built optimizer.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(inner._model_variables_moving_average) if inner.use_ema else []


def _updates(optimizer: Any) -> tf.Tensor:
    """Returns the number of updates so far; not a variable if accumulating."""
    return keras.ops.convert_to_tensor(optimizer.iterations)


class _KeyedById:
    """Identifies variables by `id`: in a scope they have no `_unique_id`."""

    def _var_key(self, variable: keras.Variable) -> int:
        return id(variable)


class _Stateless(_KeyedById):
    """The methods of `BaseOptimizer`, with accumulation and EMA by `where`."""

    assign = BaseOptimizer.assign
    assign_add = BaseOptimizer.assign_add
    assign_sub = BaseOptimizer.assign_sub
    stateless_apply = BaseOptimizer.stateless_apply
    _apply_weight_decay = BaseOptimizer._apply_weight_decay
    _backend_update_step = BaseOptimizer._backend_update_step

    def _backend_apply_gradients(
        self: Any, gradients: Sequence[Any], weights: Sequence[keras.Variable]
    ) -> None:
        steps = self.gradient_accumulation_steps
        if steps:
            self._accumulate(gradients, weights, steps)
        else:
            self._update(gradients, weights)
        if self.use_ema:
            self._average()

    def _update(
        self: Any, gradients: Sequence[Any], weights: Sequence[keras.Variable]
    ) -> None:
        clipped = self._clip_gradients(gradients)
        self._apply_weight_decay(weights)
        rate = self.learning_rate
        self._backend_update_step(clipped, weights, rate)

    def _accumulate(
        self: Any,
        gradients: Sequence[Any],
        weights: Sequence[keras.Variable],
        steps: int,
    ) -> None:
        """Updates on every `steps`-th call only, with the mean gradient."""
        index = self._get_variable_index
        all_sums = self._accumulated_gradients
        sums = [all_sums[index(weight)] for weight in weights]
        is_update = (self._iterations.value + 1) % steps == 0
        totals = [g + s.value for g, s in zip(gradients, sums, strict=True)]
        touched = [*weights, *self._slots_except(all_sums)]
        before = [variable.value for variable in touched]
        self._update([total / steps for total in totals], weights)
        for variable, value in zip(touched, before, strict=True):
            variable.assign(tf.where(is_update, variable.value, value))
        for variable, total in zip(sums, totals, strict=True):
            variable.assign(tf.where(is_update, tf.zeros_like(total), total))

    def _slots_except(self: Any, sums: Sequence[Any]) -> list[keras.Variable]:
        left_out = {id(variable) for variable in sums}
        return [
            variable
            for variable in self.variables
            if id(variable) not in left_out
        ]

    def _average(self: Any) -> None:
        weights = self._trainable_variables
        self._update_model_variables_moving_average(weights)
        every = self.ema_overwrite_frequency
        if not every:
            return
        is_due = (_updates(self) + 1) % every == 0
        pairs = zip(weights, averages(self), strict=True)
        for weight, average in pairs:
            weight.assign(tf.where(is_due, average.value, weight.value))


class _StatelessNadam(_Stateless):
    """Nadam, which keeps a running product of its momenta."""

    def _backend_update_step(
        self: Any,
        gradients: Sequence[Any],
        weights: Sequence[keras.Variable],
        rate: Any,
    ) -> None:
        product = self._u_product
        step = tf.cast(_updates(self) + 1, product.dtype)
        beta = self.beta_1
        product.assign(product.value * beta * (1.0 - 0.5 * 0.96**step))
        super()._backend_update_step(gradients, weights, rate)


class _StatelessLossScale(_KeyedById):
    """Loss scaling that skips a step, by `where`, if a gradient overflowed."""

    def stateless_apply(
        self: Any,
        slots: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor | None],
        weights: Sequence[tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns new weights and slots."""
        inner = self.inner_optimizer
        pairs = zip(self.variables, slots, strict=True)
        value_of = {id(variable): value for variable, value in pairs}
        scale = value_of[id(self.dynamic_scale)]
        count = value_of[id(self.step_counter)]
        unscaled = [
            None if g is None else g / tf.cast(scale, g.dtype)
            for g in gradients
        ]
        is_finite = tf.reduce_all(
            [
                tf.reduce_all(tf.math.is_finite(g))
                for g in unscaled
                if g is not None
            ]
        )
        old = [value_of[id(v)] for v in inner.variables]
        new_weights, new = inner.stateless_apply(old, unscaled, weights)
        new_weights = [
            tf.where(is_finite, n, o)
            for n, o in zip(new_weights, weights, strict=True)
        ]
        for variable, n, o in zip(inner.variables, new, old, strict=True):
            value_of[id(variable)] = tf.where(is_finite, n, o)
        growth = self.dynamic_growth_steps
        is_due = is_finite & (count + 1 >= growth)
        value_of[id(self.dynamic_scale)] = tf.where(
            is_finite, tf.where(is_due, scale * 2, scale), scale / 2
        )
        value_of[id(self.step_counter)] = tf.where(
            is_finite & ~is_due, count + 1, tf.zeros_like(count)
        )
        return new_weights, list(value_of.values())
