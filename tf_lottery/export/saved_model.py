"""How a network becomes a SavedModel to serve."""

import os
import pathlib
from typing import Any

from tf_lottery.export import conversion, replacing, serving, verification
from tf_lottery.export import source as sources


def saved_model(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes a SavedModel of plain TensorFlow, pruned weights at zero.

    `tf.saved_model.load` reads it where tf_lottery is not installed. Its
    endpoint `serve` takes and returns the structures that the model does; its
    signature `serving_default` takes and returns tensors by their names. Each
    weight is stored once: `keras.Model.export` stores it twice (keras#23553).
    The file is loaded and compared with the Keras model before it is kept.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The directory to write; a SavedModel there is replaced.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.
        x: Examples to compare on, as the model takes them. None: random ones.

    Returns:
        The directory.

    Raises:
        ValueError: The ticket holds no trained weights, or `path` is something
            else than a SavedModel, or the file does not compute what the model
            does.
    """
    network = sources.network(source, rewound, x)
    advice = conversion.advice(network, "keras")
    with replacing.beside(path, serving.MARKER) as folder:
        with conversion.refusing(network.original, "a SavedModel", advice):
            write(network, folder)
        verification.require_same(network, "saved_model", folder, advice=advice)
    return pathlib.Path(path)


def write(network: sources.Network, folder: pathlib.Path) -> None:
    """Writes a network as a SavedModel."""
    serving.save(network, folder, serving.call_of(network.model))
