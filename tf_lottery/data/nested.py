"""Nested structures of arrays, as in `keras.Model.fit`."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError, one_line

Nested = Any
"""An array, None, or a list, tuple or dictionary of `Nested`."""


def map_arrays(function: Callable[..., Any], *structures: Nested) -> Nested:
    """Returns a structure with a function applied to every array.

    Args:
        function: From one array of each structure to anything.
        *structures: Structures with the same nesting. None stays None.
    """

    def apply(*arrays: Any) -> Any:
        return None if arrays[0] is None else function(*arrays)

    return keras.tree.map_structure(apply, *structures)


def arrays_of(structure: Nested) -> list[Any]:
    """Returns the arrays of a structure, in `keras.tree.flatten`'s order."""
    flat = keras.tree.flatten(structure)
    return [array for array in flat if array is not None]


def named_arrays(
    structure: Nested, name: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yields every array with its path, such as `"x['age'][0]"`.

    Args:
        structure: The structure.
        name: Name of the structure, the start of every path.
    """
    if isinstance(structure, dict):
        for key in sorted(structure, key=str):
            yield from named_arrays(structure[key], f"{name}[{key!r}]")
    elif isinstance(structure, (list, tuple)):
        for i, part in enumerate(structure):
            yield from named_arrays(part, f"{name}[{i}]")
    elif structure is not None:
        yield name, structure


def nesting(structure: Nested) -> Nested:
    """Returns the structure with `"array"` in place of every array."""
    return map_arrays(lambda _: "array", structure)


def from_user(name: str, data: Any) -> Nested:
    """Returns a user's data as arrays of numbers or of text.

    Floats become `keras.backend.floatx()`, text becomes an object array of
    `str`. A list is an array if it holds numbers, and a structure if it holds
    arrays, tensors or dictionaries. A pandas `Series` becomes a column,
    `[examples, 1]`, as in Keras.

    Args:
        name: Name of the data, for messages.
        data: Arrays, tensors, pandas objects or numbers, in any nesting.

    Raises:
        UserError: A part is not an array of numbers or of text.
    """
    if data is None:
        return None
    if isinstance(data, dict):
        return {k: from_user(f"{name}[{k!r}]", v) for k, v in data.items()}
    if isinstance(data, (list, tuple)) and _holds_arrays(data):
        parts = (from_user(f"{name}[{i}]", v) for i, v in enumerate(data))
        return list(parts) if isinstance(data, list) else tuple(parts)
    return _array(name, data)


def _holds_arrays(data: Any) -> bool:
    """Returns whether a list, or a list in it, has arrays or dictionaries."""
    for entry in data:
        if isinstance(entry, (list, tuple)):
            if _holds_arrays(entry):
                return True
        elif isinstance(entry, dict) or bool(getattr(entry, "ndim", False)):
            return True
    return False


def _array(name: str, data: Any) -> np.ndarray:
    try:
        array = np.asarray(data, order="C")
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{name} is not an array of numbers: {one_line(error)}. Pad "
            "examples of different lengths to one length."
        ) from None
    if array.dtype.kind == "O":
        array = _from_objects(name, array)
    if array.dtype.kind in "US":
        return array.astype(str).astype(object)
    if array.dtype.kind not in "fiubO" and array.dtype.name != "bfloat16":
        raise UserError(
            f"{name} must hold numbers or text; got an array of {array.dtype}."
        )
    if type(data).__module__.split(".")[0] == "pandas" and array.ndim == 1:
        array = array[:, None]
    if array.dtype.kind in "iubO":
        return array
    with np.errstate(over="ignore"):  # To inf, which `dataset` reports.
        return array.astype(keras.backend.floatx(), copy=False)


def _from_objects(name: str, array: np.ndarray) -> np.ndarray:
    """Returns an array of objects as text or as numbers."""
    kinds = {type(value) for value in array.ravel()}
    if kinds <= {bytes}:
        return np.char.decode(array.astype(bytes)).astype(object)
    if kinds and all(issubclass(kind, str) for kind in kinds):
        return array
    numbers = (bool, int, float, np.number, np.bool_)
    if kinds and all(issubclass(kind, numbers) for kind in kinds):
        return array.astype(keras.backend.floatx())
    types = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
    raise UserError(
        f"{name} must hold numbers or text; got an array of objects: {types}. "
        "Convert it to one type, and pad examples to one shape."
    )
