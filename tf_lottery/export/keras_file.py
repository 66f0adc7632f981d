"""How a network becomes a `.keras` file."""

import os
import pathlib
from typing import Any

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.export import conversion, replacing, verification
from tf_lottery.export import source as sources


def keras_file(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes a `.keras` file of stock layers, pruned weights at zero.

    `keras.models.load_model` reads it where tf_lottery is not installed. Of a
    model with a `Lambda`, Keras asks for `safe_mode=False` then; classes of
    your own it must know. The file is loaded and compared with the Keras model
    before it is kept.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write, which ends in `.keras`.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.
        x: Examples to compare on, as the model takes them. None: random ones.

    Returns:
        The file.

    Raises:
        ValueError: The ticket holds no trained weights, or `path` does not
            end in `.keras`, or is a directory; or Keras cannot save the model,
            or load it again.
    """
    if pathlib.Path(path).suffix != ".keras":
        raise UserError(
            f"{str(path)!r} does not end in .keras, by which Keras knows the "
            "format when it loads the file. Name it so."
        )
    network = sources.network(source, rewound, x)
    model = network.model
    if masking.is_masked(model):
        raise UserError(
            f"Model {model.name!r} has masked layers and cannot be copied "
            "without them. Take them out, tfl.strip_masks(model, copy=False), "
            "and export it then; or write another format (saved_model)."
        )
    advice = (
        "Give classes of your own get_config, by which Keras makes them again; "
        "or write another format (saved_model)."
    )
    with replacing.beside(path) as file:
        with conversion.refusing(model, "a .keras file", advice):
            model.save(file)
        verification.require_same(network, "keras", file, advice=advice)
    return pathlib.Path(path)
