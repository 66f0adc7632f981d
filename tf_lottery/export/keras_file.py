"""Export to a `.keras` file."""

import os
import pathlib
from typing import Any

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.export import (
    atomic_output,
    conversion,
    verification,
)
from tf_lottery.export.exported_model import ExportedModel, TicketOrModel


def keras_file(
    source: TicketOrModel,
    path: str | os.PathLike[str],
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes a `.keras` file of stock layers, pruned weights at zero.

    `keras.models.load_model` reads it without tf_lottery. A model with a
    `Lambda` needs `safe_mode=False`; classes of your own must be registered.
    The file is loaded and compared with the Keras model; if they differ, `path`
    is not changed.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write; its name must end in `.keras`.
        rewound: Whether to export the weights that a ticket restarts from,
            mask ⊙ θk, instead of the trained ones.
        x: Examples to compare on, in the structure of the model's inputs;
            None for random ones.

    Returns:
        The file.

    Raises:
        UserError: The ticket has no trained weights, or `path` does not end
            in `.keras`, or is a directory; or Keras cannot save the model, or
            cannot load it.
    """
    if pathlib.Path(path).suffix != ".keras":
        raise UserError(
            f"{str(path)!r} does not end in .keras. Keras needs this suffix "
            "to load the file."
        )
    exported = ExportedModel.of(source, rewound, x)
    model = exported.model
    if masking.is_masked(model):
        raise UserError(
            f"Model {model.name!r} has masked layers and cannot be copied "
            "without them. Call tfl.strip_masks(model, copy=False) and export "
            "it then; or write another format (saved_model)."
        )
    advice = (
        "Give classes of your own get_config, which Keras needs to load them; "
        "or write another format (saved_model)."
    )
    with atomic_output.replacing(path) as file:
        with conversion.report_errors(model, "a .keras file", advice):
            model.save(file)
        verification.require_same_outputs(
            exported, "keras", file, advice=advice
        )
    return pathlib.Path(path)
