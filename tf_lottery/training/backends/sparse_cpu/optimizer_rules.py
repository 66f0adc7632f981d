"""This module knows how Keras' optimizers become rules of the kernel."""

import functools
import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.training.backends.sparse_cpu.dense_chain import UnsupportedError
from tf_lottery.training.backends.sparse_cpu.kernel_types import Rule

# What each may be given; all else must be as Keras has it by default.
_SETTINGS: dict[type, tuple[str, ...]] = {
    keras.optimizers.Adam: ("learning_rate", "beta_1", "beta_2", "epsilon"),
    keras.optimizers.SGD: ("learning_rate", "momentum", "nesterov"),
}
_STEPS_AT_ONCE = 1_024


def read(optimizer: keras.optimizers.Optimizer) -> Rule:
    """Returns the step that an optimizer takes.

    Raises:
        UnsupportedError: The kernel knows no such step.
    """
    kind = _kind(optimizer)
    for name, setting in inspect.signature(kind).parameters.items():
        if name in (*_SETTINGS[kind], "name", "kwargs"):
            continue
        value = getattr(optimizer, name, setting.default)
        if value != setting.default:
            raise UnsupportedError(f"the optimizer has {name}={value!r}")
    if not isinstance(_rate(optimizer), keras.Variable | _Schedule):
        raise UnsupportedError("the learning rate is a function")
    if kind is keras.optimizers.SGD:
        return _rule(
            False, optimizer.momentum, nesterov=bool(optimizer.nesterov)
        )
    if not optimizer.epsilon > 0:
        # A weight that never had a gradient would become 0 / 0.
        raise UnsupportedError(f"the optimizer has epsilon={optimizer.epsilon}")
    return _rule(True, optimizer.beta_1, optimizer.beta_2, optimizer.epsilon)


def _rule(
    adam: bool,
    decay: float,
    decay_2: float = 0.0,
    epsilon: float = 0.0,
    nesterov: bool = False,
) -> Rule:
    return Rule(
        adam,
        np.float32(decay),
        np.float32(decay_2),
        np.float32(1 - decay),
        np.float32(1 - decay_2),
        np.float32(epsilon),
        nesterov,
    )


def require_loss(loss: Any) -> None:
    """Raises unless it is cross-entropy of integer labels and logits."""
    kind = keras.losses.SparseCategoricalCrossentropy
    if type(loss) is not kind or not loss.from_logits:
        raise UnsupportedError(
            "the loss is not SparseCategoricalCrossentropy(from_logits=True)"
        )
    if loss.reduction not in ("mean", "sum_over_batch_size"):
        raise UnsupportedError(f"the loss has reduction={loss.reduction!r}")
    if loss.ignore_class is not None:
        raise UnsupportedError(
            f"the loss has ignore_class={loss.ignore_class!r}"
        )
    if loss.dtype != "float32":
        raise UnsupportedError(f"the loss computes in {loss.dtype}")


def slot_names(optimizer: keras.optimizers.Optimizer) -> tuple[str, ...]:
    """Returns what follows a weight's path in the names of its slots."""
    if _kind(optimizer) is keras.optimizers.Adam:
        return "/momentum", "/velocity"
    return ("/momentum",) if optimizer.momentum else ()


class Rates:
    """The learning rates of an optimizer's steps.

    A step's rate depends on the step alone, not on what is asked for with it.

    Args:
        optimizer: The optimizer.
        constant: The rate in its state, which may have been set since.

    Attributes:
        constant: The one rate of all steps, or None if there is a schedule.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        constant: np.ndarray | None = None,
    ) -> None:
        self._rate = _rate(optimizer)
        self.constant: np.float32 | None = None
        if not isinstance(self._rate, _Schedule):
            value = self._rate.numpy() if constant is None else constant
            self.constant = np.float32(value)
        self._stretch = functools.lru_cache(maxsize=2)(self._of_stretch)
        # Compiled, as in the dense loop. AutoGraph needs the source.
        self._of_steps = tf.function(
            self._mapped, jit_compile=True, autograph=False
        )

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Returns float32 `[stop - start]`, the rates of steps from start."""
        if self.constant is not None:
            return np.full(stop - start, self.constant)
        first, last = start // _STEPS_AT_ONCE, -(-stop // _STEPS_AT_ONCE)
        found = np.concatenate([self._stretch(i) for i in range(first, last)])
        start -= first * _STEPS_AT_ONCE
        return found[start : stop - first * _STEPS_AT_ONCE]

    def _of_stretch(self, stretch: int) -> np.ndarray:
        first = stretch * _STEPS_AT_ONCE
        steps = np.arange(first, first + _STEPS_AT_ONCE, dtype=np.int64)
        return self._of_steps(tf.constant(steps)).numpy()

    def _mapped(self, steps: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda step: tf.cast(self._rate(step), tf.float32),
            steps,
            fn_output_signature=tf.float32,
        )


_Schedule = keras.optimizers.schedules.LearningRateSchedule


def _rate(optimizer: keras.optimizers.Optimizer) -> Any:
    # Keras' public property is the rate of one step; tests pin this name.
    return optimizer._learning_rate


def _kind(optimizer: Any) -> type:
    """Returns Adam or SGD; an optimizer that carries masks has their names."""
    cls = type(optimizer)
    for kind in _SETTINGS:
        if issubclass(cls, kind) and (cls.__module__, cls.__qualname__) == (
            kind.__module__,
            kind.__qualname__,
        ):
            return kind
    raise UnsupportedError(f"the optimizer is {cls.__qualname__}")
