"""This module knows which weights are a function of a recorded seed."""

import hashlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.core import registry
from tf_lottery.core.errors import UserError

INITIALIZERS = (
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "LecunNormal",
    "LecunUniform",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
)
"""Names in `keras.initializers` of those that draw from a seed."""

InitializerSpec = Mapping[str, Any]
"""`initializer`, its `config`, and the `sha256` of the values that are kept."""


def initializer_specs(
    model: keras.Model,
    weights: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
) -> dict[str, dict[str, Any]]:
    """Returns how to draw each masked kernel that its initializer draws again.

    Args:
        model: A model of the architecture; its weights do not matter.
        weights: Path to value, as trained from or trained.
        masks: Path to mask; only surviving values are compared.

    Returns:
        Kernel path to recipe. Kernels whose initializer has no seed, or draws
        other values than these, are not among them.
    """
    found = {}
    for path, kernel in masking.kernels(model, include=list(masks)).items():
        initializer = masking.initializer_of(kernel.layer, kernel.variable)
        name = type(initializer).__name__
        if initializer is None or name not in INITIALIZERS:
            continue
        spec = {
            "initializer": name,
            "config": initializer.get_config(),
            "sha256": _digest(weights[path], masks[path]),
        }
        if not isinstance(spec["config"].get("seed"), int):
            continue
        if _digest(_values(spec, masks[path]), masks[path]) == spec["sha256"]:
            found[path] = spec
    return found


def draw(spec: InitializerSpec, mask: np.ndarray) -> np.ndarray:
    """Returns float32 values as the recipe draws them, zero where pruned.

    Raises:
        ValueError: The recipe is none, or this TensorFlow draws others.
    """
    values = _values(spec, mask)
    if _digest(values, mask) != spec["sha256"]:
        raise UserError(
            "its weights are kept as a seed, from which Keras "
            f"{keras.__version__} draws others here. Get the ticket with its "
            "values, or the versions that its provenance names"
        )
    return values


def _values(spec: InitializerSpec, mask: np.ndarray) -> np.ndarray:
    known = {name: name for name in INITIALIZERS}
    name = registry.get(known, spec["initializer"], "initializer")
    # Numbers and words only: nothing that Keras would look up or call.
    config = dict(spec["config"])
    for value in config.values():
        if not isinstance(value, int | float | str | None):
            raise UserError(f"an initializer's configuration of {value!r}")
    initializer = getattr(keras.initializers, name)(**config)
    values = keras.ops.convert_to_numpy(initializer(mask.shape, "float32"))
    return np.where(mask, values, np.zeros_like(values))


def _digest(values: np.ndarray, mask: np.ndarray) -> str:
    return hashlib.sha256(values[mask].tobytes()).hexdigest()
