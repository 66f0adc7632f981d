"""This module knows which initializer a layer draws a variable with."""

import keras


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
