"""This module knows how a function of tensors becomes a SavedModel."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

MARKER = "saved_model.pb"
"""The file that makes a directory a SavedModel."""


def save(
    model: keras.Model,
    folder: pathlib.Path,
    call: Callable[[Any], Any],
    tracked: Sequence[Any],
) -> None:
    """Writes a SavedModel that computes `call`, in terms of what is tracked.

    Args:
        model: Its inputs are those of the SavedModel.
        folder: Where to.
        call: From the inputs, one tensor or a list, to the outputs.
        tracked: The variables and resources that `call` reads.
    """
    spec = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{i}")
        for i, tensor in enumerate(model.inputs)
    ]
    # A plain module that tracks the variables and nothing of Keras.
    module = tf.Module()
    module.weights = list(tracked)

    @tf.function(input_signature=spec, autograph=False)
    def serve(*inputs: tf.Tensor) -> tf.Tensor:
        return call(inputs[0] if len(inputs) == 1 else list(inputs))

    module.serve = serve
    tf.saved_model.save(
        module,
        str(folder),
        signatures={"serving_default": serve.get_concrete_function()},
    )
