"""How a network becomes an ONNX file."""

import importlib.util
import os
import pathlib
from typing import Any

import numpy as np

from tf_lottery.core.errors import MissingPackageError
from tf_lottery.export import conversion, replacing, serving, verification
from tf_lottery.export import source as sources


def onnx(
    source: sources.Source,
    path: str | os.PathLike[str],
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes an ONNX file, pruned weights at zero.

    It takes and returns tensors by the model's own names, and computes in
    float32 where the model computes in half precision. The file is loaded and
    compared with the Keras model before it is kept.

    Args:
        source: A ticket, or a Keras model with masked layers or without.
        path: The file to write.
        rewound: Of a ticket, export the weights it restarts from, mask ⊙ θk,
            and not the trained ones.
        x: Examples to compare on, as the model takes them. None: random ones.

    Returns:
        The file.

    Raises:
        ImportError: tf2onnx, which writes the file, or onnxruntime, which
            runs it, is not installed.
        ValueError: The ticket holds no trained weights, or ONNX cannot
            compute what the model does, or `path` is a directory.
    """
    for package in ("tf2onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                f"To write ONNX files, {package} must be installed: "
                "pip install 'tf-lottery[onnx]'."
            )
    network = sources.network(source, rewound, x)
    advice = conversion.advice(network, "saved_model", "litert", "keras")
    with replacing.beside(path) as file:
        with (
            conversion.refusing(network.original, "ONNX", advice),
            conversion.computing_in_float32(network.model),
        ):
            _convert(network, file)
        verification.require_same(network, "onnx", file, advice=advice)
    return pathlib.Path(path)


def _convert(network: sources.Network, file: pathlib.Path) -> None:
    import tf2onnx

    signature = network.signature
    function = serving.by_name(signature, serving.call_of(network.model))
    concrete = function.get_concrete_function()
    # Not `tf2onnx.convert.from_function`, to which a constant that the model
    # holds, such as the mean of a Normalization, is one more input.
    inputs = concrete.inputs[: len(signature.specs)]
    names = {
        tensor.name: spec.name
        for tensor, spec in zip(inputs, signature.specs, strict=True)
    }
    returned = concrete.structured_outputs
    outputs = [returned[name].name for name in signature.outputs]
    names |= dict(zip(outputs, signature.outputs, strict=True))
    graph = tf2onnx.tf_loader.from_function(
        concrete, [t.name for t in inputs], outputs
    )
    tf2onnx.convert.from_graph_def(
        graph,
        input_names=[t.name for t in inputs],
        output_names=outputs,
        tensors_to_rename=names,
        custom_op_handlers={"Erfc": (_erfc, [])},
        output_path=str(file),
    )


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """Writes 1 - erf, for tf2onnx knows no erfc, of which Keras makes gelu."""
    one = graph.make_const(f"{name}_one", np.ones((), "float32"))
    erf = graph.make_node("Erf", [node.input[0]])
    graph.remove_node(name)
    graph.make_node(
        "Sub", [one.output[0], erf.output[0]], outputs=node.output, name=name
    )
