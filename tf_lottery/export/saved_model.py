"""Export to a SavedModel."""

import os
import pathlib
from typing import Any

from tf_lottery.export import (
    atomic_output,
    conversion,
    serving,
    verification,
)
from tf_lottery.export.exported_model import ExportedModel, TicketOrModel


def saved_model(
    source: TicketOrModel,
    path: str | os.PathLike[str],
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes a SavedModel of plain TensorFlow, pruned weights at zero.

    `tf.saved_model.load` reads it without tf_lottery. Its endpoint `serve`
    takes and returns the structures of the model; its signature
    `serving_default` takes and returns tensors by name. Each weight is stored
    once: `keras.Model.export` stores it twice (keras#23553). The file is loaded
    and compared with the Keras model; if they differ, `path` is not changed.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The directory to write; an older SavedModel is replaced.
        rewound: Whether to export the weights that a ticket restarts from,
            mask ⊙ θk, instead of the trained ones.
        x: Examples to compare on, in the structure of the model's inputs;
            None for random ones.

    Returns:
        The directory.

    Raises:
        UserError: The ticket has no trained weights, or `path` is no
            SavedModel, or the file returns other outputs than the model.
    """
    exported = ExportedModel.of(source, rewound, x)
    advice = conversion.advice(exported, "keras")
    with atomic_output.replacing(path, serving.MARKER) as folder:
        with conversion.report_errors(
            exported.original, "a SavedModel", advice
        ):
            write(exported, folder)
        verification.require_same_outputs(
            exported, "saved_model", folder, advice=advice
        )
    return pathlib.Path(path)


def write(exported: ExportedModel, folder: pathlib.Path) -> None:
    """Writes a model as a SavedModel, without comparing it.

    Args:
        exported: The model.
        folder: The directory to write.
    """
    serving.save(exported, folder, serving.call_of(exported.model))
