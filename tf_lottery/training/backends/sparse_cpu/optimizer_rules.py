"""Reading a Keras optimizer and loss for the compiled kernel."""

import functools
import inspect
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.training.backends.sparse_cpu.dense_chain import UnsupportedError
from tf_lottery.training.backends.sparse_cpu.kernel_types import Rule

# Settings that may differ from the default of Keras.
_SETTINGS: dict[type, tuple[str, ...]] = {
    keras.optimizers.Adam: ("learning_rate", "beta_1", "beta_2", "epsilon"),
    keras.optimizers.SGD: ("learning_rate", "momentum", "nesterov"),
}
_STEPS_PER_CHUNK = 1_024


def read(optimizer: keras.optimizers.Optimizer) -> Rule:
    """Returns the settings of an optimizer.

    Args:
        optimizer: Adam or SGD of Keras; it may carry masks.

    Raises:
        UnsupportedError: The kernel does not implement this optimizer.
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
        # A weight that never had a gradient would be 0 / 0.
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
    """Raises unless a loss is cross-entropy of integer labels and logits.

    Args:
        loss: A Keras loss object.

    Raises:
        UnsupportedError: It is another loss, or has other settings.
    """
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
    """Returns the suffixes of the names of a weight's slots.

    Args:
        optimizer: Adam or SGD of Keras.
    """
    if _kind(optimizer) is keras.optimizers.Adam:
        return "/momentum", "/velocity"
    return ("/momentum",) if optimizer.momentum else ()


class Rates:
    """The learning rate of each step.

    A rate depends on its step only: schedules are computed in fixed chunks of
    steps, because another chunk size could round differently.

    Args:
        optimizer: Adam or SGD of Keras.
        constant: The learning rate in the saved state, which replaces that
            of the optimizer; float32 scalar or None.

    Attributes:
        constant: The rate of all steps, or None if there is a schedule.
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
        self._chunk = functools.lru_cache(maxsize=2)(self._compute_chunk)
        # XLA, as in dense training. AutoGraph needs the source.
        self._rates_of = tf.function(
            self._map_rate, jit_compile=True, autograph=False
        )

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Returns float32 `[stop - start]`, the rates of steps from `start` on.

        Args:
            start: The first step, >= 0.
            stop: The step after the last one.
        """
        if self.constant is not None:
            return np.full(stop - start, self.constant)
        first, last = start // _STEPS_PER_CHUNK, -(-stop // _STEPS_PER_CHUNK)
        rates = np.concatenate([self._chunk(i) for i in range(first, last)])
        start -= first * _STEPS_PER_CHUNK
        return rates[start : stop - first * _STEPS_PER_CHUNK]

    def _compute_chunk(self, chunk: int) -> np.ndarray:
        first = chunk * _STEPS_PER_CHUNK
        steps = np.arange(first, first + _STEPS_PER_CHUNK, dtype=np.int64)
        return self._rates_of(tf.constant(steps)).numpy()

    def _map_rate(self, steps: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda step: tf.cast(self._rate(step), tf.float32),
            steps,
            fn_output_signature=tf.float32,
        )


_Schedule = keras.optimizers.schedules.LearningRateSchedule


def _rate(optimizer: keras.optimizers.Optimizer) -> Any:
    # The public property is the current rate only; tests pin this name.
    return optimizer._learning_rate


def _kind(optimizer: Any) -> type:
    """Returns Adam or SGD, also for the subclass that carries masks."""
    cls = type(optimizer)
    for kind in _SETTINGS:
        if issubclass(cls, kind) and (cls.__module__, cls.__qualname__) == (
            kind.__module__,
            kind.__qualname__,
        ):
            return kind
    raise UnsupportedError(f"the optimizer is {cls.__qualname__}")
