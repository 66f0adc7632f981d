"""Comparison of an exported file with its Keras model."""

import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.export import benchmark_worker, examples, suppress_output
from tf_lottery.export.exported_model import ExportedModel

TOLERANCES = {
    "float64": 1e-4,
    "float32": 1e-4,
    "float16": 2e-2,
    "bfloat16": 1e-1,
    "int8": 0.25,
}
"""By dtype: the largest allowed difference, relative to the largest output.

Float32 sums in another order differ by about 1e-6, in a deep network by more.
Files in float16 or int8 are rounded on purpose: the comparison finds files that
are wrong, not files that are inexact.
"""


def require_same_outputs(
    exported: ExportedModel,
    runtime: str,
    path: pathlib.Path,
    dtype: str = "float32",
    *,
    advice: str,
) -> None:
    """Raises if a file does not return the outputs of its Keras model.

    Args:
        exported: The model that was written.
        runtime: The runtime that loads it, a key of
            `benchmark_worker.RUNTIMES`.
        path: The file.
        dtype: The dtype of its weights, a key of `TOLERANCES`.
        advice: What the user can do if outputs differ.

    Raises:
        UserError: The file cannot be loaded or run, or returns other outputs
            than the model; or the model cannot be run on the examples.
    """
    arrays, expected = _expected(exported)
    try:
        with suppress_output.suppress_stderr():
            options = _options(exported) if runtime == "keras" else {}
            load = benchmark_worker.RUNTIMES[runtime]
            function = load(
                str(path), exported.signature.described(), None, **options
            )
            outputs = [function(arrays) for _ in expected]
    except Exception as error:  # A runtime may raise anything.
        summary = suppress_output.error_summary(error).replace(str(path), "it")
        raise UserError(
            f"The {runtime} file of {exported.original.name!r} was written but "
            f"does not run: {summary} It is not kept. {advice}"
        ) from error
    dtypes = {dtype, *(layer.compute_dtype for layer in _layers(exported))}
    tolerance = max(TOLERANCES.get(name, 0) for name in dtypes)
    for call, arrays_of_call in enumerate(zip(outputs, expected, strict=True)):
        for name, output, right in zip(
            exported.signature.outputs, *arrays_of_call, strict=True
        ):
            difference = relative_difference(output, right)
            if not difference <= tolerance:
                again = " when it is called again" if call else ""
                raise UserError(
                    f"The {runtime} file of {exported.original.name!r} returns "
                    f"another {name!r} than Keras{again}: they differ by "
                    f"{difference:.2g} of the largest, and {tolerance:g} is "
                    f"allowed. It is not kept. {advice}"
                )


def relative_difference(output: Any, expected: Any) -> float:
    """Returns the largest difference relative to the largest expected value.

    Args:
        output: An array.
        expected: The array to compare with.

    Returns:
        A number >= 0; for arrays without floats, the fraction of values that
        differ. Infinite if shapes differ, or if only one array is finite in a
        position.
    """
    output, expected = np.asarray(output), np.asarray(expected)
    if output.shape != expected.shape:
        return np.inf
    if expected.dtype.kind not in "fV":  # V: bfloat16
        return float((output != expected).mean()) if expected.size else 0.0
    output, expected = output.astype("float64"), expected.astype("float64")
    finite = np.isfinite(expected)
    if not np.isfinite(output[finite]).all() or not np.array_equal(
        output[~finite], expected[~finite], equal_nan=True
    ):
        return np.inf
    if not finite.any():
        return 0.0
    error = np.abs(output[finite] - expected[finite]).max()
    return float(error / (np.abs(expected[finite]).max() or 1.0))


def _expected(
    exported: ExportedModel,
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Returns examples, and the Keras model's outputs of two calls on them.

    The second call shows the state of stateful layers, which some formats do
    not support.
    """
    model, signature = exported.original, exported.signature
    if exported.x is None:
        source, arrays = "random examples", examples.random(model, signature)
    else:
        source, arrays = "the examples", examples.few(signature, exported.x)
    inputs = keras.tree.pack_sequence_as(
        signature.inputs, list(map(keras.ops.convert_to_tensor, arrays))
    )
    try:
        # The scope keeps the state of the model's layers unchanged.
        with keras.StatelessScope():
            calls = [model(inputs, training=False) for _ in range(2)]
    except Exception as error:  # The model's code may raise anything.
        raise UserError(
            f"Model {model.name!r} does not run on {source}, so its file "
            f"cannot be checked: {suppress_output.error_summary(error)} Give "
            "examples that it runs on: x=..."
        ) from error
    return arrays, [
        [np.asarray(leaf) for leaf in keras.tree.flatten(outputs)]
        for outputs in calls
    ]


def _layers(exported: ExportedModel) -> list[keras.layers.Layer]:
    return list(exported.original._flatten_layers())


def _options(exported: ExportedModel) -> Mapping[str, Any]:
    """Returns arguments of `keras.models.load_model` for our own file."""
    classes = {type(layer).__name__: type(layer) for layer in _layers(exported)}
    custom = {
        name: cls
        for name, cls in classes.items()
        if not cls.__module__.startswith("keras.")
    }
    return {"custom_objects": custom, "safe_mode": False}
