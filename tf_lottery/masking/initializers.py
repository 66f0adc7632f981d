"""Initializers of layers' variables, and the values that they can draw."""

import math
from collections.abc import Sequence

import keras

# Of a normal distribution, cut off at two of them: Keras draws from a wider
# one, so that what is left has the deviation that was asked for.
_CUT_DEVIATION = 0.87962566103423978


def initializer_of(
    layer: keras.layers.Layer, variable: keras.Variable
) -> keras.initializers.Initializer | None:
    """Returns the initializer of a layer's variable; None if none is known.

    Args:
        layer: The layer that made the variable.
        variable: One of its own variables.
    """
    # Keras says `recurrent_initializer` of a `recurrent_kernel`, and
    # `depthwise_initializer` of a depthwise convolution's `kernel`.
    names = (variable.name, variable.name.removesuffix("_kernel"), "depthwise")
    known = [getattr(layer, f"{each}_initializer", None) for each in names]
    found = next((each for each in known if each is not None), None)
    is_one = isinstance(found, keras.initializers.Initializer)
    return found if is_one else None


def support(
    initializer: keras.initializers.Initializer, shape: Sequence[int]
) -> tuple[float, float]:
    """Returns the least and the greatest value that an initializer draws.

    Args:
        initializer: Any; of one that is not bounded, or unknown, the interval
            is infinite.
        shape: Shape of the variable.
    """
    kinds = keras.initializers
    if isinstance(initializer, kinds.RandomUniform):
        return initializer.minval, initializer.maxval
    center, distance = 0.0, math.inf
    if isinstance(initializer, kinds.TruncatedNormal):
        center, distance = initializer.mean, 2 * initializer.stddev
    elif isinstance(initializer, kinds.VarianceScaling):
        variance = initializer.scale / _fan(initializer.mode, shape)
        if initializer.distribution == "uniform":
            distance = math.sqrt(3 * variance)
        elif initializer.distribution == "truncated_normal":
            distance = 2 * math.sqrt(variance) / _CUT_DEVIATION
    return center - distance, center + distance


def _fan(mode: str, shape: Sequence[int]) -> float:
    """Returns how many values go into, or out of, a unit of a kernel."""
    field = math.prod(shape[:-2])
    if len(shape) > 1:
        fan_in, fan_out = shape[-2] * field, shape[-1] * field
    else:
        fan_in = fan_out = math.prod(shape)
    means = {"fan_in": fan_in, "fan_out": fan_out}
    return max(1.0, means.get(mode, (fan_in + fan_out) / 2))
