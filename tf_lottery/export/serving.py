"""How a network becomes a function of TensorFlow, and a SavedModel."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from tf_lottery.export.signatures import Signature
from tf_lottery.export.source import Network

MARKER = "saved_model.pb"
"""The file that makes a directory a SavedModel."""


def by_name(
    signature: Signature, call: Callable[[Any], Any]
) -> tf.types.experimental.PolymorphicFunction:
    """Returns a function from inputs to a dict of outputs, all by their names.

    Args:
        signature: The names.
        call: From inputs to outputs, in the structures of the model.
    """

    @tf.function(input_signature=signature.specs, autograph=False)
    def serving_default(*arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = keras.tree.pack_sequence_as(signature.inputs, list(arrays))
        outputs = keras.tree.flatten(call(inputs))
        return {
            # What is returned twice must be two tensors to have two names.
            name: tf.identity(output, name)
            for name, output in zip(signature.outputs, outputs, strict=True)
        }

    return serving_default


def call_of(model: keras.Model) -> Callable[[Any], Any]:
    """Returns the model's inference."""
    return lambda inputs: model(inputs, training=False)


def save(
    network: Network,
    folder: pathlib.Path,
    call: Callable[[Any], Any],
    resources: Iterable[Any] = (),
) -> None:
    """Writes a SavedModel that computes `call`.

    Args:
        network: Its signature names inputs and outputs.
        folder: Where to.
        call: From inputs to outputs, in the structures of the model.
        resources: What `call` reads, apart from variables and the tables of
            the model's layers.
    """
    # A plain module that tracks what is read, and nothing of Keras.
    module = tf.Module()

    @tf.function(input_signature=[network.signature.inputs], autograph=False)
    def serve(inputs: Any) -> Any:
        return call(inputs)

    module.serve = serve
    function = by_name(network.signature, serve).get_concrete_function()
    module.weights = list(function.graph.variables)
    module.resources = [*resources, *_tables(network.model)]
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
