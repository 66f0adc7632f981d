"""How a network becomes a LiteRT (`.tflite`) file."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.export import conversion, muting, replacing, verification
from tf_lottery.export import source as sources
from tf_lottery.export.saved_model import write as write_saved_model

_BLOCK = 4
"""Inputs that a block of a sparse kernel holds."""


def litert(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
    dtype: str = "float32",
    x: Any = None,
) -> pathlib.Path:
    """Writes a `.tflite` file, which LiteRT runs on phones and servers.

    Its signature `serving_default` takes and returns tensors by the model's
    own names. It computes in float32 where the model computes in half
    precision, and recurrent layers are unrolled. The file is loaded and
    compared with the Keras model before it is kept.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.
        dtype: How weights are stored: `"float32"`, exactly; `"float16"`,
            rounded; `"int8"`, dynamic range: rounded to 1/127 of the largest
            of their unit, and multiplied as whole numbers.
        x: Examples to compare on, as the model takes them. None: random ones.

    Returns:
        The file.

    Raises:
        ValueError: The ticket holds no trained weights, or LiteRT cannot
            compute what the model does, or `path` is a directory.
    """

    def choose(converter: Any) -> None:
        if dtype != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if dtype == "float16":
            converter.target_spec.supported_types = [tf.float16]

    network = sources.network(source, rewound, x)
    advice = _advice(network)
    with replacing.beside(path) as file:
        _convert(network, file, choose, advice)
        verification.require_same(network, "litert", file, dtype, advice=advice)
    return pathlib.Path(path)


def sparse_litert(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes a `.tflite` file that stores surviving weights alone.

    Exactly, in float32: with float16 LiteRT's sparse kernels return nan, and
    with int8 they do not load. Other programs that read `.tflite` files may
    not know sparse tensors. Names, half precision, recurrent layers and the
    comparison are as for `litert`.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.
        x: Examples to compare on, as the model takes them. None: random ones.

    Returns:
        The file.

    Raises:
        ValueError: The ticket holds no trained weights, or LiteRT cannot
            compute what the model does, or `path` is a directory.
    """

    def choose(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]

    network = sources.network(source, rewound, x)
    advice = "Write it dense (litert), or another format (saved_model, onnx)."
    with replacing.beside(path) as file:
        _convert(network, file, choose, _advice(network))
        _require_whole_blocks(file, advice)
        verification.require_same(network, "litert", file, advice=advice)
    return pathlib.Path(path)


def _convert(
    network: sources.Network,
    file: pathlib.Path,
    choose: Callable[[Any], None],
    advice: str,
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        conversion.refusing(network.original, "LiteRT", advice),
        conversion.computing_in_float32(network.model),
        conversion.unrolled(network.model),
    ):
        # From functions of Keras 3 models the converter makes files of nan.
        write_saved_model(network, pathlib.Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        choose(converter)
        content = converter.convert()
    file.write_bytes(content)


def _require_whole_blocks(file: pathlib.Path, advice: str) -> None:
    """Refuses a file of which LiteRT reads memory that is not its own.

    The converter stores small kernels in blocks of four inputs. Where their
    number is no multiple of four, LiteRT multiplies what happens to lie behind
    the last (tensorflow 2.21), which a comparison may find or not.
    """
    with muting.muted():
        interpreter = tf.lite.Interpreter(str(file))
    for tensor in interpreter.get_tensor_details():
        blocks = len(tensor["sparsity_parameters"].get("block_map", ()))
        if blocks and tensor["shape"][-1] % _BLOCK:
            raise UserError(
                f"LiteRT computes sparse kernels of {tensor['shape'][-1]} "
                f"inputs wrongly, for that is no multiple of {_BLOCK}: "
                f"{tensor['name']!r}. {advice}"
            )


def _advice(network: sources.Network) -> str:
    # Files with TensorFlow's operations need the Flex delegate, which is not
    # in TensorFlow's package since 2.20 (google-ai-edge/LiteRT#6458).
    return (
        f"{conversion.advice(network, 'saved_model', 'onnx', 'keras')} Or "
        "convert a saved_model with tf.lite.OpsSet.SELECT_TF_OPS, for devices "
        "that have LiteRT's Flex delegate."
    )
