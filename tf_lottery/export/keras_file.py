"""This module knows how a network becomes a `.keras` file."""

import os
import pathlib

from tf_lottery.export import files
from tf_lottery.export import source as sources


def keras_file(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
) -> pathlib.Path:
    """Writes a `.keras` file of stock layers, pruned weights at zero.

    `keras.models.load_model` reads it where tf_lottery is not installed.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write, which ends in `.keras`.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.

    Returns:
        The file.

    Raises:
        ValueError: The ticket holds no trained weights, or `path` does not
            end in `.keras`, or is a directory.
    """
    if pathlib.Path(path).suffix != ".keras":
        raise ValueError(
            f"{str(path)!r} does not end in .keras, by which Keras knows the "
            "format when it loads the file. Name it so."
        )
    model = sources.plain(source, rewound)
    with files.beside(path) as file:
        model.save(file)
    return pathlib.Path(path)
