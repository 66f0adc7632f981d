"""This module knows an optimizer's step as a function of values.

Keras' TensorFlow optimizers update `tf.Variable`s and refuse `stateless_apply`.
Many networks in one program need the step as a function; Keras' own base class
has it, free of any backend, and `pure` brings it back. What TensorFlow's
variant does with `cond`s over side effects is done by selection, as Keras does
for JAX.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer


def pure(optimizer: Any) -> keras.optimizers.Optimizer:
    """Returns a fresh optimizer of the same configuration, fit for values.

    Its `stateless_apply(slots, gradients, weights)` returns new weights and
    slots, and traces under XLA and `tf.vectorized_map`.

    Args:
        optimizer: As `keras.Model.compile` takes it.
    """
    found = keras.optimizers.get(optimizer)
    fresh = type(found).from_config(found.get_config())
    cls = type(fresh)
    if isinstance(fresh, keras.optimizers.LossScaleOptimizer):
        fresh.inner_optimizer = pure(fresh.inner_optimizer)
        bases: tuple[type, ...] = (_PureLossScale, cls)
    elif isinstance(fresh, keras.optimizers.Nadam):
        bases = (_PureNadam, cls)
    else:
        bases = (_Pure, cls)
    fresh.__class__ = type(cls.__name__, bases, {})
    return fresh


def averages(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Returns the moving average of each weight, or nothing without EMA."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(inner._model_variables_moving_average) if inner.use_ema else []


def _steps(optimizer: Any) -> tf.Tensor:
    """Returns updates so far: a variable; with accumulation made of one."""
    return keras.ops.convert_to_tensor(optimizer.iterations)


class _Keyed:
    """Tells variables apart by themselves: in a scope they have no handle."""

    def _var_key(self, variable: keras.Variable) -> int:
        return id(variable)


class _Pure(_Keyed):
    """Keras' backend-free methods, in place of those for `tf.Variable`s."""

    assign = BaseOptimizer.assign
    assign_add = BaseOptimizer.assign_add
    assign_sub = BaseOptimizer.assign_sub
    stateless_apply = BaseOptimizer.stateless_apply
    _apply_weight_decay = BaseOptimizer._apply_weight_decay
    _backend_update_step = BaseOptimizer._backend_update_step

    def _backend_apply_gradients(
        self, gradients: Sequence[Any], weights: Sequence[keras.Variable]
    ) -> None:
        steps = self.gradient_accumulation_steps  # type: ignore[attr-defined]
        if steps:
            self._accumulate(gradients, weights, steps)
        else:
            self._update(gradients, weights)
        if self.use_ema:  # type: ignore[attr-defined]
            self._average()

    def _update(
        self, gradients: Sequence[Any], weights: Sequence[keras.Variable]
    ) -> None:
        clipped = self._clip_gradients(gradients)  # type: ignore[attr-defined]
        self._apply_weight_decay(weights)
        rate = self.learning_rate  # type: ignore[attr-defined]
        self._backend_update_step(clipped, weights, rate)

    def _accumulate(
        self,
        gradients: Sequence[Any],
        weights: Sequence[keras.Variable],
        steps: int,
    ) -> None:
        """Updates on every `steps`-th call only, with the mean gradient."""
        index = self._get_variable_index  # type: ignore[attr-defined]
        all_sums = self._accumulated_gradients  # type: ignore[attr-defined]
        sums = [all_sums[index(weight)] for weight in weights]
        is_update = (self._iterations.value + 1) % steps == 0  # type: ignore
        totals = [g + s.value for g, s in zip(gradients, sums, strict=True)]
        touched = [*weights, *self._slots_besides(all_sums)]
        before = [variable.value for variable in touched]
        self._update([total / steps for total in totals], weights)
        for variable, value in zip(touched, before, strict=True):
            variable.assign(tf.where(is_update, variable.value, value))
        for variable, total in zip(sums, totals, strict=True):
            variable.assign(tf.where(is_update, tf.zeros_like(total), total))

    def _slots_besides(self, sums: Sequence[Any]) -> list[keras.Variable]:
        left_out = {id(variable) for variable in sums}
        return [
            variable
            for variable in self.variables  # type: ignore[attr-defined]
            if id(variable) not in left_out
        ]

    def _average(self) -> None:
        weights = self._trainable_variables  # type: ignore[attr-defined]
        self._update_model_variables_moving_average(weights)  # type: ignore
        every = self.ema_overwrite_frequency  # type: ignore[attr-defined]
        if not every:
            return
        is_due = (_steps(self) + 1) % every == 0
        pairs = zip(weights, averages(self), strict=True)
        for weight, average in pairs:
            weight.assign(tf.where(is_due, average.value, weight.value))


class _PureNadam(_Pure):
    """Nadam, which multiplies up its momenta before it updates a weight."""

    def _backend_update_step(
        self,
        gradients: Sequence[Any],
        weights: Sequence[keras.Variable],
        rate: Any,
    ) -> None:
        product = self._u_product  # type: ignore[attr-defined]
        step = tf.cast(_steps(self) + 1, product.dtype)
        beta = self.beta_1  # type: ignore[attr-defined]
        product.assign(product.value * beta * (1.0 - 0.5 * 0.96**step))
        super()._backend_update_step(gradients, weights, rate)


class _PureLossScale(_Keyed):
    """Loss scaling by selection: skips the step if a gradient overflowed."""

    def stateless_apply(
        self,
        slots: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor | None],
        weights: Sequence[tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns new weights and slots."""
        inner = self.inner_optimizer  # type: ignore[attr-defined]
        own = {
            id(v): value
            for v, value in zip(
                self.variables,  # type: ignore[attr-defined]
                slots,
                strict=True,
            )
        }
        scale = own[id(self.dynamic_scale)]  # type: ignore[attr-defined]
        count = own[id(self.step_counter)]  # type: ignore[attr-defined]
        values = [
            None if g is None else g / tf.cast(scale, g.dtype)
            for g in gradients
        ]
        is_finite = tf.reduce_all(
            [
                tf.reduce_all(tf.math.is_finite(v))
                for v in values
                if v is not None
            ]
        )
        old = [own[id(v)] for v in inner.variables]
        new_weights, new = inner.stateless_apply(old, values, weights)
        pairs = [*zip(new_weights, weights, strict=True)]
        new_weights = [tf.where(is_finite, n, o) for n, o in pairs]
        for variable, n, o in zip(inner.variables, new, old, strict=True):
            own[id(variable)] = tf.where(is_finite, n, o)
        growth = self.dynamic_growth_steps  # type: ignore[attr-defined]
        is_due = is_finite & (count + 1 >= growth)
        own[id(self.dynamic_scale)] = tf.where(  # type: ignore[attr-defined]
            is_finite, tf.where(is_due, scale * 2, scale), scale / 2
        )
        own[id(self.step_counter)] = tf.where(  # type: ignore[attr-defined]
            is_finite & ~is_due, count + 1, tf.zeros_like(count)
        )
        return new_weights, list(own.values())
