"""This module knows how a network becomes a SavedModel to serve."""

import os
import pathlib

import keras

from tf_lottery.export import files, serving
from tf_lottery.export import source as sources


def saved_model(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
) -> pathlib.Path:
    """Writes a SavedModel of stock layers, pruned weights at zero.

    `tf.saved_model.load` reads it where tf_lottery is not installed; it has
    the endpoint `serve` and the signature `serving_default`. Each weight is
    stored once: `keras.Model.export` stores it twice (keras#23553).

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The directory to write; a SavedModel there is replaced.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.

    Returns:
        The directory.

    Raises:
        ValueError: The ticket holds no trained weights, or the model is
            subclassed, or `path` is something else than a SavedModel.
    """
    model = sources.graph(source, rewound)
    with files.beside(path, serving.MARKER) as folder:
        write(model, folder)
    return pathlib.Path(path)


def write(model: keras.Model, folder: pathlib.Path) -> None:
    """Writes a plain model as a SavedModel."""
    serving.save(
        model,
        folder,
        lambda inputs: model(inputs, training=False),
        [variable.value for variable in model.variables],
    )
