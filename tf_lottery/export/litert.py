"""Export to LiteRT (`.tflite`)."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.export import (
    atomic_output,
    conversion,
    suppress_output,
    verification,
)
from tf_lottery.export.exported_model import ExportedModel, TicketOrModel
from tf_lottery.export.saved_model import write as write_saved_model

_BLOCK = 4
"""Inputs in a block of a sparse kernel."""


def litert(
    source: TicketOrModel,
    path: str | os.PathLike[str],
    rewound: bool = False,
    dtype: str = "float32",
    x: Any = None,
) -> pathlib.Path:
    """Writes a `.tflite` file, which LiteRT runs on phones and servers.

    Its signature `serving_default` takes and returns tensors by the names of
    the model's inputs and outputs. It computes in float32 where the model
    computes in half precision, and recurrent layers are unrolled. The file is
    loaded and compared with the Keras model; if they differ, `path` is not
    changed.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write.
        rewound: Whether to export the weights that a ticket restarts from,
            mask ⊙ θk, instead of the trained ones.
        dtype: The dtype of stored weights: `"float32"`, exact; `"float16"`,
            rounded; `"int8"`, dynamic range: rounded to 1/127 of the largest
            weight of the unit, and multiplied as whole numbers.
        x: Examples to compare on, in the structure of the model's inputs;
            None for random ones.

    Returns:
        The file.

    Raises:
        UserError: The ticket has no trained weights, or LiteRT cannot express
            the model, or `path` is a directory.
    """

    def configure(converter: Any) -> None:
        if dtype != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if dtype == "float16":
            converter.target_spec.supported_types = [tf.float16]

    exported = ExportedModel.of(source, rewound, x)
    advice = _advice(exported)
    with atomic_output.replacing(path) as file:
        _convert(exported, file, configure, advice)
        verification.require_same_outputs(
            exported, "litert", file, dtype, advice=advice
        )
    return pathlib.Path(path)


def sparse_litert(
    source: TicketOrModel,
    path: str | os.PathLike[str],
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes a `.tflite` file that stores only surviving weights.

    They are stored in float32: with float16 LiteRT's sparse kernels return nan,
    and with int8 they do not load. Other programs that read `.tflite` files may
    not support sparse tensors. The signature has the names of the model's
    inputs and outputs, half precision becomes float32, and recurrent layers are
    unrolled. The file is loaded and compared with the Keras model; if they
    differ, `path` is not changed.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write.
        rewound: Whether to export the weights that a ticket restarts from,
            mask ⊙ θk, instead of the trained ones.
        x: Examples to compare on, in the structure of the model's inputs;
            None for random ones.

    Returns:
        The file.

    Raises:
        UserError: The ticket has no trained weights, or LiteRT cannot express
            the model, or `path` is a directory.
    """

    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]

    exported = ExportedModel.of(source, rewound, x)
    advice = "Write it dense (litert), or another format (saved_model, onnx)."
    with atomic_output.replacing(path) as file:
        _convert(exported, file, configure, _advice(exported))
        _require_whole_blocks(file, advice)
        verification.require_same_outputs(
            exported, "litert", file, advice=advice
        )
    return pathlib.Path(path)


def _convert(
    exported: ExportedModel,
    file: pathlib.Path,
    configure: Callable[[Any], None],
    advice: str,
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        conversion.report_errors(exported.original, "LiteRT", advice),
        conversion.computing_in_float32(exported.model),
        conversion.unrolled(exported.model),
    ):
        # From functions of Keras 3 models the converter writes files that
        # return nan.
        write_saved_model(exported, pathlib.Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        configure(converter)
        content = converter.convert()
    file.write_bytes(content)


def _require_whole_blocks(file: pathlib.Path, advice: str) -> None:
    """Raises for a file with which LiteRT reads memory out of bounds.

    The converter stores small kernels in blocks of four inputs. If the number
    of inputs is no multiple of four, LiteRT reads beyond the last input
    (tensorflow 2.21), which the comparison of outputs does not always show.
    """
    with suppress_output.suppress_stderr():
        interpreter = tf.lite.Interpreter(str(file))
    for tensor in interpreter.get_tensor_details():
        blocks = len(tensor["sparsity_parameters"].get("block_map", ()))
        if blocks and tensor["shape"][-1] % _BLOCK:
            raise UserError(
                f"LiteRT computes sparse kernels of {tensor['shape'][-1]} "
                f"inputs wrongly, because that is no multiple of {_BLOCK}: "
                f"{tensor['name']!r}. {advice}"
            )


def _advice(exported: ExportedModel) -> str:
    # Files with TensorFlow's operations need the Flex delegate, which is not
    # in TensorFlow's package since 2.20 (google-ai-edge/LiteRT#6458).
    return (
        f"{conversion.advice(exported, 'saved_model', 'onnx', 'keras')} Or "
        "convert a saved_model with tf.lite.OpsSet.SELECT_TF_OPS, for devices "
        "that have LiteRT's Flex delegate."
    )
