"""Nested structures of arrays, as `keras.Model.fit` takes them."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError, one_line

Nested = Any
"""An array, None, or a list, tuple or dictionary of these, nested at will."""


def map_arrays(function: Callable[..., Any], *structures: Nested) -> Nested:
    """Returns a structure with a function applied to every array.

    Args:
        function: From one array of each structure to anything.
        *structures: Structures that are nested alike. None stays None.
    """

    def one(*arrays: Any) -> Any:
        return None if arrays[0] is None else function(*arrays)

    return keras.tree.map_structure(one, *structures)


def arrays_of(structure: Nested) -> list[Any]:
    """Returns the arrays of a structure, in the order that Keras flattens."""
    flat = keras.tree.flatten(structure)
    return [array for array in flat if array is not None]


def named_arrays(
    structure: Nested, name: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yields every array with where it stands, such as `"x['age'][0]"`.

    Args:
        structure: The structure.
        name: The name of the whole.
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
    """Returns how a structure is nested, for comparing and for messages."""
    return map_arrays(lambda _: "array", structure)


def from_user(name: str, given: Any) -> Nested:
    """Returns what a user gave as arrays of numbers or of text.

    Floats become `keras.backend.floatx()`, text becomes an object array of
    `str`. A list is an array if it holds numbers, and a structure if it holds
    arrays, tensors or dictionaries. A pandas `Series` becomes a column,
    `[examples, 1]`, as in Keras.

    Args:
        name: What an error calls it.
        given: Arrays, tensors, pandas objects, numbers, nested at will.

    Raises:
        ValueError: Something in it is no array of numbers or of text.
    """
    if given is None:
        return None
    if isinstance(given, dict):
        return {k: from_user(f"{name}[{k!r}]", v) for k, v in given.items()}
    if isinstance(given, (list, tuple)) and _holds_arrays(given):
        parts = (from_user(f"{name}[{i}]", v) for i, v in enumerate(given))
        return list(parts) if isinstance(given, list) else tuple(parts)
    return _array(name, given)


def _holds_arrays(given: Any) -> bool:
    """Returns whether any entry of a list is no number, text or such list."""
    for entry in given:
        if isinstance(entry, (list, tuple)):
            if _holds_arrays(entry):
                return True
        elif isinstance(entry, dict) or bool(getattr(entry, "ndim", False)):
            return True
    return False


def _array(name: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(given, order="C")
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{name} is no array of numbers: {one_line(error)}. Pad examples "
            "of different lengths to one length."
        ) from None
    if array.dtype.kind == "O":
        array = _from_objects(name, array)
    if array.dtype.kind in "US":
        return array.astype(str).astype(object)
    if array.dtype.kind not in "fiubO" and array.dtype.name != "bfloat16":
        raise UserError(
            f"{name} must hold numbers or text; got an array of {array.dtype}."
        )
    if type(given).__module__.split(".")[0] == "pandas" and array.ndim == 1:
        array = array[:, None]
    if array.dtype.kind in "iubO":
        return array
    with np.errstate(over="ignore"):  # to inf, which is refused by name
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
    found = ", ".join(sorted(kind.__name__ for kind in kinds)) or "nothing"
    raise UserError(
        f"{name} must hold numbers or text; got an array of objects: {found}. "
        "Convert it to one type, and pad examples to one shape."
    )
