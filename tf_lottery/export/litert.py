"""This module knows how a network becomes a LiteRT (`.tflite`) file."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_lottery.export import files
from tf_lottery.export import source as sources
from tf_lottery.export.saved_model import saved_model


def litert(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes a `.tflite` file, which LiteRT runs on phones and servers.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.
        dtype: How weights are stored: `"float32"`, exactly; `"float16"`,
            rounded; `"int8"`, dynamic range: rounded to 1/127 of the largest
            of their unit, and multiplied as whole numbers.

    Returns:
        The file.

    Raises:
        ValueError: The ticket holds no trained weights, or the model is
            subclassed, or `path` is a directory.
    """

    def choose(converter: Any) -> None:
        if dtype != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if dtype == "float16":
            converter.target_spec.supported_types = [tf.float16]

    return _write(source, path, rewound, choose)


def sparse_litert(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
) -> pathlib.Path:
    """Writes a `.tflite` file that stores surviving weights alone.

    Exactly, in float32: with float16 LiteRT's sparse kernels return nan, and
    with int8 they do not load. Other programs that read `.tflite` files may
    not know sparse tensors.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.

    Returns:
        The file.

    Raises:
        ValueError: The ticket holds no trained weights, or the model is
            subclassed, or `path` is a directory.
    """

    def choose(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]

    return _write(source, path, rewound, choose)


def _write(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool,
    choose: Callable[[Any], None],
) -> pathlib.Path:
    model = sources.graph(source, rewound)
    # From functions of Keras 3 models the converter makes files of nan.
    with tempfile.TemporaryDirectory() as folder:
        saved_model(model, folder + "/model")
        converter = tf.lite.TFLiteConverter.from_saved_model(folder + "/model")
        choose(converter)
        content = converter.convert()
    with files.beside(path) as file:
        file.write_bytes(content)
    return pathlib.Path(path)
