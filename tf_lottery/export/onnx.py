"""Export to ONNX."""

import importlib.util
import os
import pathlib
from typing import Any

import numpy as np

from tf_lottery.core.errors import MissingPackageError
from tf_lottery.export import (
    atomic_output,
    conversion,
    serving,
    verification,
)
from tf_lottery.export.exported_model import ExportedModel, TicketOrModel


def onnx(
    source: TicketOrModel,
    path: str | os.PathLike[str],
    rewound: bool = False,
    x: Any = None,
) -> pathlib.Path:
    """Writes an ONNX file, pruned weights at zero.

    Its inputs and outputs have the names of the model's. It computes in float32
    where the model computes in half precision. The file is loaded and compared
    with the Keras model; if they differ, `path` is not changed.

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
        MissingPackageError: tf2onnx, which writes the file, or onnxruntime,
            which runs it, is not installed.
        UserError: The ticket has no trained weights, or ONNX cannot express
            the model, or `path` is a directory.
    """
    for package in ("tf2onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                f"To write ONNX files, {package} must be installed: "
                "pip install 'tf-lottery[onnx]'."
            )
    exported = ExportedModel.of(source, rewound, x)
    advice = conversion.advice(exported, "saved_model", "litert", "keras")
    with atomic_output.replacing(path) as file:
        with (
            conversion.report_errors(exported.original, "ONNX", advice),
            conversion.computing_in_float32(exported.model),
        ):
            _convert(exported, file)
        verification.require_same_outputs(exported, "onnx", file, advice=advice)
    return pathlib.Path(path)


def _convert(exported: ExportedModel, file: pathlib.Path) -> None:
    import tf2onnx

    signature = exported.signature
    function = serving.by_name(signature, serving.call_of(exported.model))
    concrete = function.get_concrete_function()
    # Not `tf2onnx.convert.from_function`: it makes a constant of the model,
    # such as the mean of a Normalization, one more input.
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
    """Writes 1 - erf: tf2onnx lacks erfc, which Keras uses for gelu."""
    one = graph.make_const(f"{name}_one", np.ones((), "float32"))
    erf = graph.make_node("Erf", [node.input[0]])
    graph.remove_node(name)
    graph.make_node(
        "Sub", [one.output[0], erf.output[0]], outputs=node.output, name=name
    )
