"""This module knows how a network becomes an ONNX file."""

import importlib.util
import os
import pathlib

import keras

from tf_lottery.export import files
from tf_lottery.export import source as sources


def onnx(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
) -> pathlib.Path:
    """Writes an ONNX file, pruned weights at zero.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.

    Returns:
        The file.

    Raises:
        ImportError: tf2onnx is not installed.
        ValueError: The ticket holds no trained weights, or the model is
            subclassed, or `path` is a directory.
    """
    if importlib.util.find_spec("tf2onnx") is None:
        raise ImportError(
            "To write ONNX files, tf2onnx must be installed: "
            "pip install 'tf-lottery[onnx]'."
        )
    model = sources.graph(source, rewound)
    spec = [
        keras.InputSpec(shape=t.shape, dtype=t.dtype, name=f"input_{i}")
        for i, t in enumerate(model.inputs)
    ]
    with files.beside(path) as file:
        model.export(
            file,
            format="onnx",
            verbose=False,
            input_signature=[spec] if len(spec) > 1 else spec,
        )
    return pathlib.Path(path)
