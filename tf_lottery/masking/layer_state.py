"""State of layers other than variables, such as vocabularies.

Keras saves such state by four methods of a layer, which this module calls:
`save_own_variables`, `load_own_variables`, `save_assets` and `load_assets`.
`load_own_variables` also recomputes constants that depend on variables, as in
`Normalization`.
"""

import base64
import functools
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError, one_line
from tf_lottery.masking import conversion, layers, paths

LayerState = dict[str, dict[str, Any]]
"""The state of a layer as JSON: `"entries"` of its store, and `"files"`.

An entry is the path of a variable of the layer, or an array as `_encoded`
returns it. Files are in base64.
"""

# These load variables and nothing else, which are known by path.
_PLAIN_LOADERS = {
    cls.load_own_variables for cls in (keras.layers.Layer, *layers.KERNELS)
}


def carry(source: keras.Model, target: keras.Model) -> dict[str, LayerState]:
    """Copies the state of layers from one model to another.

    Variables are not assigned: assign them afterwards, by path, and call
    `derive`.

    Args:
        source: The model to copy from.
        target: A model with the same layers.

    Returns:
        Layer path to state, for each layer of the target whose state changed.

    Raises:
        UserError: A layer cannot load the state.
    """
    targets = _layers(target)
    states = {}
    for path, layer in _layers(source).items():
        if path in targets and (_loads_variables(layer) or _has_assets(layer)):
            state = _attempt(_state_of, layer)
            if state is None and _attempt(_state_of, targets[path]) is None:
                continue  # Before `adapt` neither has state to save.
            states[path] = state or _state_of(layer)
    return restore(target, states)


def restore(
    model: keras.Model, states: Mapping[str, LayerState]
) -> dict[str, LayerState]:
    """Loads the states that `carry` returned into layers.

    Args:
        model: The model whose layers are changed.
        states: Layer path to state. A path that the model lacks is ignored:
            a model without its preprocessing has the same weights.

    Returns:
        The states of the layers that had another state.

    Raises:
        UserError: A layer cannot load its state.
    """
    targets = _layers(model)
    changed = {}
    for path, state in states.items():
        layer = targets.get(path)
        if layer is None or _attempt(_state_of, layer) == state:
            continue
        title = f"Layer {layer.name!r} ({type(layer).__qualname__})"
        try:
            _load(layer, state)
        except Exception as error:  # noqa: BLE001 - a user's code and a file
            reason = one_line(error, 200)
            raise UserError(
                f"{title} does not take the state that its twin saved: "
                f"{type(error).__name__}: {reason}"
            ) from None
        if state["files"] and _files(layer) != state["files"]:
            raise UserError(
                f"{title} saves other files than its twin, whose files it has "
                "loaded: let load_assets read all that save_assets writes (a "
                "vocabulary must hold no line breaks)."
            )
        changed[path] = state
    return changed


def derive(model: keras.Model) -> None:
    """Recomputes the constants that layers compute from their variables.

    `variable.assign` alone does not change the constants of a `Normalization`.
    Variables keep their values, bit for bit.

    Args:
        model: A model whose variables were assigned.
    """
    for layer in _layers(model).values():
        if _loads_variables(layer):
            entries = _attempt(_entries, layer)
            if entries is not None:
                load = functools.partial(_load_entries, layer, entries)
                _keeping_variables(layer, load)
        elif hasattr(layer, "finalize_state") and layer.variables:
            before = dict(vars(layer))
            if _keeping_variables(layer, layer.finalize_state):
                # It computes variables from the counts of `adapt`, which is
                # the other way round: undo it.
                vars(layer).clear()
                vars(layer).update(before)


def derives(model: keras.Model) -> bool:
    """Returns whether layers may compute constants from their variables.

    Args:
        model: A built model.
    """
    return any(
        _loads_variables(layer) or hasattr(layer, "finalize_state")
        for layer in _layers(model).values()
    )


def _keeping_variables(
    layer: keras.layers.Layer, change: Callable[[], None]
) -> bool:
    """Restores variables after a change; returns whether it changed them."""
    before = [(v, np.array(v.numpy())) for v in layer.variables]
    change()
    is_changed = False
    for variable, value in before:
        if variable.numpy().tobytes() != value.tobytes():
            variable.assign(value)
            is_changed = True
    return is_changed


def _layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    return {"": model, **paths.layers_by_path(model)}


def _loads_variables(layer: keras.layers.Layer) -> bool:
    plain: Any = conversion.plain_class(type(layer))
    return plain.load_own_variables not in _PLAIN_LOADERS


def _has_assets(layer: keras.layers.Layer) -> bool:
    return hasattr(layer, "save_assets") and hasattr(layer, "load_assets")


def _attempt(
    save: Callable[[keras.layers.Layer], Any], layer: keras.layers.Layer
) -> Any:
    """Returns `save(layer)`; None if it raises."""
    try:
        return save(layer)
    except Exception:  # noqa: BLE001 - before `adapt`, saving may fail
        return None


def _state_of(layer: keras.layers.Layer) -> LayerState:
    return {
        "entries": _entries(layer) if _loads_variables(layer) else {},
        "files": _files(layer) if _has_assets(layer) else {},
    }


def _entries(layer: keras.layers.Layer) -> dict[str, Any]:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    variables = paths.variables_by_path(layer)
    return {name: _entry(value, variables) for name, value in store.items()}


def _entry(value: Any, variables: Mapping[str, keras.Variable]) -> Any:
    array = np.asarray(keras.ops.convert_to_numpy(value))
    for path, variable in variables.items():
        # Arrays of one constant may be equal by chance.
        if value is variable or (
            array.size > 1
            and (array != array.flat[0]).any()
            and np.array_equal(array, variable.numpy())
        ):
            return path
    return _encoded(array)


def _encoded(array: np.ndarray) -> dict[str, Any]:
    if array.dtype.hasobject:
        raise UserError("A layer saves objects that are not arrays.")
    # NumPy finds bfloat16 by its name only.
    dtype = array.dtype.name if array.dtype.kind == "V" else array.dtype.str
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": dtype, "shape": list(array.shape), "data": data}


def _decoded(entry: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(entry["dtype"])
    data = base64.b64decode(entry["data"], validate=True)
    return np.frombuffer(data, dtype).reshape(entry["shape"]).copy()


def _files(layer: keras.layers.Layer) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as name:
        layer.save_assets(name)
        folder = pathlib.Path(name)
        return {
            file.relative_to(folder).as_posix(): base64.b64encode(
                file.read_bytes()
            ).decode()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }


def _load(layer: keras.layers.Layer, state: LayerState) -> None:
    if state["entries"]:
        _load_entries(layer, state["entries"])
    if state["files"]:
        with tempfile.TemporaryDirectory() as folder:
            _write(pathlib.Path(folder), state["files"])
            layer.load_assets(folder)


def _load_entries(
    layer: keras.layers.Layer, entries: Mapping[str, Any]
) -> None:
    variables = paths.variables_by_path(layer)
    store = {
        name: np.array(variables[entry].numpy())
        if isinstance(entry, str)
        else _decoded(entry)
        for name, entry in entries.items()
    }
    layer.load_own_variables(store)


def _write(folder: pathlib.Path, files: Mapping[str, str]) -> None:
    for name, data in files.items():
        file = folder / name
        # A foreign file may name any path.
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"A layer's file is called {name[:40]!r}.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(data, validate=True))
