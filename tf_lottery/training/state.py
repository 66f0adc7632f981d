"""The state of a network in training, as arrays."""

import dataclasses
import hashlib
from collections.abc import Mapping

import keras
import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class State:
    """All that training continues from, as arrays.

    Attributes:
        step: Optimizer updates so far.
        weights: Path to value of every variable of the model: weights, moving
            statistics, states of seed generators.
        slots: Name to value of every variable of the optimizer. Slots of a
            weight start with its path: `"fc1/kernel/momentum"`. Empty at
            step 0, which stands for a new optimizer.
    """

    step: int
    weights: Arrays
    slots: Arrays

    @property
    def digest(self) -> str:
        """SHA-256 over step, names and values."""
        hasher = hashlib.sha256(str(self.step).encode())
        for arrays in (self.weights, self.slots):
            hasher.update(digest(arrays).encode())
        return hasher.hexdigest()


def digest(arrays: Arrays) -> str:
    """Returns the SHA-256 of names, shapes, dtypes and values.

    Args:
        arrays: Name to array; the order of names does not matter.
    """
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        hasher.update(f"{name}{array.shape}{array.dtype}".encode())
        hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def values(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Returns copies of the values of variables, by the same names.

    Args:
        variables: Name to variable.
    """
    return {
        name: np.array(variable.numpy()) for name, variable in variables.items()
    }


def assign(variables: Mapping[str, keras.Variable], arrays: Arrays) -> None:
    """Sets variables to the arrays of the same names.

    Args:
        variables: Name to variable.
        arrays: Name to value; it may hold more names.
    """
    for name, variable in variables.items():
        variable.assign(arrays[name])
