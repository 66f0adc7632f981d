"""TensorFlow functions of Keras models, written as SavedModels."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.export.exported_model import ExportedModel
from tf_lottery.export.signatures import Signature

MARKER = "saved_model.pb"
"""A file that every SavedModel contains."""


def by_name(
    signature: Signature, call: Callable[[Any], Any]
) -> tf.types.experimental.PolymorphicFunction:
    """Returns a function from named inputs to a dict of named outputs.

    Args:
        signature: The names, shapes and dtypes.
        call: Function from inputs to outputs, in the structures of the model.
    """

    @tf.function(input_signature=signature.specs, autograph=False)
    def serving_default(*arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = keras.tree.pack_sequence_as(signature.inputs, list(arrays))
        outputs = keras.tree.flatten(call(inputs))
        return {
            # A tensor that is returned twice needs two names.
            name: tf.identity(output, name)
            for name, output in zip(signature.outputs, outputs, strict=True)
        }

    return serving_default


def call_of(model: keras.Model) -> Callable[[Any], Any]:
    """Returns a function that calls a model for inference.

    Args:
        model: The model.
    """
    return lambda inputs: model(inputs, training=False)


def save(
    exported: ExportedModel,
    folder: pathlib.Path,
    call: Callable[[Any], Any],
    resources: Iterable[Any] = (),
) -> None:
    """Writes a SavedModel that computes `call`.

    Args:
        exported: The model, for the names of its inputs and outputs.
        folder: The directory to write.
        call: Function from inputs to outputs, in the structures of the model.
        resources: Resources that `call` reads, except variables and the
            tables of the model's layers.
    """
    # A plain module, so that no Keras object is written.
    module = tf.Module()

    @tf.function(input_signature=[exported.signature.inputs], autograph=False)
    def serve(inputs: Any) -> Any:
        return call(inputs)

    module.serve = serve
    function = by_name(exported.signature, serve).get_concrete_function()
    module.weights = list(function.graph.variables)
    module.resources = [*resources, *_tables(exported.model)]
    tf.saved_model.save(
        module, str(folder), signatures={"serving_default": function}
    )


def _tables(model: keras.Model) -> list[Any]:
    """Returns the lookup tables of a model's layers."""
    return [
        value
        for layer in model._flatten_layers()
        for value in vars(layer).values()
        if isinstance(value, tf.saved_model.experimental.TrackableResource)
    ]
