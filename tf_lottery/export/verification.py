"""The comparison of a file with the Keras model that it was made of."""

import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.export import benchmark_worker, examples, muting
from tf_lottery.export.source import Network

TOLERANCES = {
    "float64": 1e-4,
    "float32": 1e-4,
    "float16": 2e-2,
    "bfloat16": 1e-1,
    "int8": 0.25,
}
"""By dtype, how far outputs may lie apart, as a share of the largest.

Float32 sums in another order differ by some 1e-6, in a deep network by more.
What is asked for in float16 or int8 is rounded on purpose: there the
comparison finds files that are wrong, not files that are inexact.
"""


def require_same(
    network: Network,
    runtime: str,
    path: pathlib.Path,
    dtype: str = "float32",
    *,
    advice: str,
) -> None:
    """Loads a file in its own runtime and compares it with its Keras model.

    Args:
        network: What was written.
        runtime: A name of `measuring.RUNTIMES`.
        path: The file.
        dtype: How it stores weights.
        advice: What the user can do if it is not the same.

    Raises:
        ValueError: The file cannot be loaded or run, or returns something
            else than the model; or the model cannot be run on the examples.
    """
    arrays, expected = _expected(network)
    try:
        with muting.muted():
            options = _options(network) if runtime == "keras" else {}
            load = benchmark_worker.RUNTIMES[runtime]
            function = load(
                str(path), network.signature.described(), None, **options
            )
            outputs = [function(arrays) for _ in expected]
    except Exception as error:  # whatever a runtime raises
        said = muting.first_line(error).replace(str(path), "it")
        raise UserError(
            f"The {runtime} file of {network.original.name!r} was written but "
            f"does not run: {said} It is not kept. {advice}"
        ) from error
    dtypes = {dtype, *(layer.compute_dtype for layer in _layers(network))}
    tolerance = max(TOLERANCES.get(name, 0) for name in dtypes)
    for call, (given, right) in enumerate(zip(outputs, expected, strict=True)):
        for name, found, wanted in zip(
            network.signature.outputs, given, right, strict=True
        ):
            apart = difference(found, wanted)
            if not apart <= tolerance:
                again = " when it is called again" if call else ""
                raise UserError(
                    f"The {runtime} file of {network.original.name!r} returns "
                    f"another {name!r} than Keras{again}: they differ by "
                    f"{apart:.2g} of the largest, and {tolerance:g} is "
                    f"allowed. It is not kept. {advice}"
                )


def difference(found: Any, wanted: Any) -> float:
    """Returns how far arrays lie apart, as a share of the largest value.

    Of arrays that hold no floats, the share of values that differ. Infinite if
    shapes differ, or if one array holds a number where the other has none.
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape:
        return np.inf
    if wanted.dtype.kind not in "fV":  # V: bfloat16
        return float((found != wanted).mean()) if wanted.size else 0.0
    found, wanted = found.astype("float64"), wanted.astype("float64")
    finite = np.isfinite(wanted)
    others = found[~finite], wanted[~finite]
    if not np.isfinite(found[finite]).all() or not np.array_equal(
        *others, equal_nan=True
    ):
        return np.inf
    if not finite.any():
        return 0.0
    error = np.abs(found[finite] - wanted[finite]).max()
    return float(error / (np.abs(wanted[finite]).max() or 1.0))


def _expected(
    network: Network,
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Returns examples, and what the Keras model returns for them.

    Twice, one after the other: a layer may have a state that a format has not.
    """
    model, signature = network.original, network.signature
    if network.x is None:
        arrays = examples.random(model, signature)
    else:
        arrays = examples.few(signature, network.x)
    inputs = keras.tree.pack_sequence_as(
        signature.inputs, list(map(keras.ops.convert_to_tensor, arrays))
    )
    try:
        # A stateful layer of the model stays as it is.
        with keras.StatelessScope():
            calls = [model(inputs, training=False) for _ in range(2)]
    except Exception as error:  # whatever the model's own code raises
        drawn = "random examples" if network.x is None else "the examples"
        raise UserError(
            f"Model {model.name!r} does not run on {drawn}, so that its file "
            f"cannot be checked: {muting.first_line(error)} Give examples "
            "that it runs on: x=..."
        ) from error
    return arrays, [
        [np.asarray(leaf) for leaf in keras.tree.flatten(outputs)]
        for outputs in calls
    ]


def _layers(network: Network) -> list[keras.layers.Layer]:
    return list(network.original._flatten_layers())


def _options(network: Network) -> Mapping[str, Any]:
    """Returns what `keras.models.load_model` needs for a file of our own."""
    classes = {type(layer).__name__: type(layer) for layer in _layers(network)}
    own = {
        name: cls
        for name, cls in classes.items()
        if not cls.__module__.startswith("keras.")
    }
    return {"custom_objects": own, "safe_mode": False}
