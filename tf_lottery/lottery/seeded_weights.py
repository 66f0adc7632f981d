"""Initial weights that are stored as the seed that draws them."""

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
"""Classes of `keras.initializers` that draw from a seed."""

InitializerSpec = Mapping[str, Any]
"""`initializer`, its `config`, and the `sha256` of the surviving values."""


def initializer_specs(
    model: keras.Model,
    weights: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
) -> dict[str, dict[str, Any]]:
    """Returns the specs of masked kernels that equal what their seeds draw.

    Args:
        model: A model of the architecture; its weights are not read.
        weights: Path to value.
        masks: Kernel path to mask; only surviving values are compared.

    Returns:
        Kernel path to spec, without kernels whose initializer has no seed or
        draws other values.
    """
    specs = {}
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
            specs[path] = spec
    return specs


def draw(spec: InitializerSpec, mask: np.ndarray) -> np.ndarray:
    """Returns the values that a spec draws, zero where pruned.

    Args:
        spec: One of `initializer_specs`.
        mask: The mask of the kernel.

    Returns:
        float32 array in the shape of the mask.

    Raises:
        UserError: The spec is invalid, or this Keras draws other values.
    """
    values = _values(spec, mask)
    if _digest(values, mask) != spec["sha256"]:
        raise UserError(
            "its weights are stored as a seed, from which Keras "
            f"{keras.__version__} draws others here. Get the ticket with its "
            "values, or install the versions that its provenance names"
        )
    return values


def _values(spec: InitializerSpec, mask: np.ndarray) -> np.ndarray:
    names = {name: name for name in INITIALIZERS}
    name = registry.get(names, spec["initializer"], "initializer")
    # Only numbers and strings: nothing that Keras would look up or call.
    config = dict(spec["config"])
    for value in config.values():
        if not isinstance(value, int | float | str | None):
            raise UserError(f"an initializer's configuration holds {value!r}")
    initializer = getattr(keras.initializers, name)(**config)
    values = keras.ops.convert_to_numpy(initializer(mask.shape, "float32"))
    return np.where(mask, values, np.zeros_like(values))


def _digest(values: np.ndarray, mask: np.ndarray) -> str:
    return hashlib.sha256(values[mask].tobytes()).hexdigest()
