"""This module knows the state that a network in training is in."""

import dataclasses
import hashlib
from collections.abc import Mapping

import keras
import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class State:
    """All that training continues from, as values.

    Attributes:
        step: Optimizer updates so far.
        weights: Path to value of every variable of the model: weights, moving
            statistics, states of seed generators.
        slots: Name to value of every variable of the optimizer. The slots of
            a weight are named after it: `"fc1/kernel/momentum"`. Empty at
            step 0, where they are a fresh optimizer's.
    """

    step: int
    weights: Arrays
    slots: Arrays

    @property
    def digest(self) -> str:
        """SHA-256 over step, names and values; equal states, equal digest."""
        hasher = hashlib.sha256(str(self.step).encode())
        for arrays in (self.weights, self.slots):
            hasher.update(digest(arrays).encode())
        return hasher.hexdigest()


def digest(arrays: Arrays) -> str:
    """Returns SHA-256 over names, shapes, dtypes and values."""
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hasher.update(f"{name}{array.shape}{array.dtype}".encode())
        hasher.update(array.tobytes())
    return hasher.hexdigest()


def values(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Returns the values of variables, by the same names."""
    return {
        name: np.array(variable.numpy()) for name, variable in variables.items()
    }


def assign(variables: Mapping[str, keras.Variable], arrays: Arrays) -> None:
    """Gives variables the values of the same names."""
    for name, variable in variables.items():
        variable.assign(arrays[name])
