"""Initializers of layers' variables, and the range of their values."""

import math
from collections.abc import Sequence

import keras

# Standard deviation of a standard normal distribution truncated at +-2. Keras
# divides by it, so that truncated draws have the deviation of the argument.
_TRUNCATED_DEVIATION = 0.87962566103423978


def initializer_of(
    layer: keras.layers.Layer, variable: keras.Variable
) -> keras.initializers.Initializer | None:
    """Returns the initializer of a layer's variable; None if it is unknown.

    Args:
        layer: The layer that created the variable.
        variable: A variable of this layer, not of its sublayers.
    """
    # The attribute for a `recurrent_kernel` is `recurrent_initializer`, that
    # for a depthwise convolution's `kernel` is `depthwise_initializer`.
    names = (variable.name, variable.name.removesuffix("_kernel"), "depthwise")
    values = [getattr(layer, f"{name}_initializer", None) for name in names]
    value = next((v for v in values if v is not None), None)
    is_initializer = isinstance(value, keras.initializers.Initializer)
    return value if is_initializer else None


def support(
    initializer: keras.initializers.Initializer, shape: Sequence[int]
) -> tuple[float, float]:
    """Returns the smallest and the largest value that an initializer draws.

    Args:
        initializer: An initializer. If it is unbounded or of an unknown class,
            the interval is infinite.
        shape: Shape of the variable.
    """
    if isinstance(initializer, keras.initializers.RandomUniform):
        return initializer.minval, initializer.maxval
    center, distance = 0.0, math.inf
    if isinstance(initializer, keras.initializers.TruncatedNormal):
        center, distance = initializer.mean, 2 * initializer.stddev
    elif isinstance(initializer, keras.initializers.VarianceScaling):
        variance = initializer.scale / _fan(initializer.mode, shape)
        if initializer.distribution == "uniform":
            distance = math.sqrt(3 * variance)
        elif initializer.distribution == "truncated_normal":
            distance = 2 * math.sqrt(variance) / _TRUNCATED_DEVIATION
    return center - distance, center + distance


def _fan(mode: str, shape: Sequence[int]) -> float:
    """Returns the fan of a kernel as Keras computes it, at least 1."""
    field = math.prod(shape[:-2])
    if len(shape) > 1:
        fan_in, fan_out = shape[-2] * field, shape[-1] * field
    else:
        fan_in = fan_out = math.prod(shape)
    means = {"fan_in": fan_in, "fan_out": fan_out}
    return max(1.0, means.get(mode, (fan_in + fan_out) / 2))
