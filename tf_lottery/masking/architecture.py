"""Models as text: their configuration and what layers learned by `adapt`."""

import json
import re
from collections.abc import Mapping
from typing import Any

import keras

from tf_lottery.masking import layer_state, paths

_STATES, _TRAINABLE = "layer_states", "trainable"
"""Keys of what Keras' configurations do not hold, by layer path."""


def architecture_of(model: keras.Model) -> str | None:
    """Returns a model as JSON that `rebuilt` reads.

    Automatic names of layers are numbered from zero, so that the same code
    gives the same text in every process. Weights are left out. What layers
    keep beside them, such as vocabularies, is under a key of its own, which
    `keras.models.model_from_json` ignores.

    Args:
        model: A built model.

    Returns:
        The text; None for a model that Keras cannot rebuild from its
        configuration, such as most subclassed ones.
    """
    try:
        content = json.loads(model.to_json())
        content.pop("compile_config", None)
        content = _renamed(content, _names(content))
        text = json.dumps(content, sort_keys=True)
        twin = keras.models.model_from_json(text)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    if _shapes(twin) != _shapes(model):
        return None
    more = {
        _STATES: layer_state.carry(model, twin),
        _TRAINABLE: _set_trainable(twin, _trainable(model)),
    }
    more = {key: found for key, found in more.items() if found}
    return json.dumps({**content, **more}, sort_keys=True) if more else text


def rebuilt(architecture: str) -> keras.Model:
    """Returns the model that `architecture_of` wrote, with fresh weights.

    Args:
        architecture: The text.

    Raises:
        Exception: Keras cannot read it, or a layer does not take its state.
    """
    model = keras.models.model_from_json(architecture)
    layer_state.restore(model, layer_states(architecture))
    _set_trainable(model, _kept(architecture, _TRAINABLE))
    return model


def _trainable(model: keras.Model) -> dict[str, bool]:
    found = paths.layers_by_path(model)
    return {path: bool(layer.trainable) for path, layer in found.items()}


def _set_trainable(
    model: keras.Model, flags: Mapping[str, bool]
) -> dict[str, bool]:
    """Freezes and thaws layers; returns the flags that were others."""
    found = paths.layers_by_path(model)
    changed = {}
    for path, flag in flags.items():
        # A container hands its flag on, so the outer ones come first.
        if path in found and bool(found[path].trainable) != flag:
            found[path].trainable = flag
            changed[path] = flag
    return changed


def layer_states(architecture: str) -> dict[str, layer_state.LayerState]:
    """Returns what layers keep beside their variables, by layer path.

    Args:
        architecture: A text of `architecture_of`.
    """
    return _kept(architecture, _STATES)


def _kept(architecture: str, key: str) -> dict[str, Any]:
    try:
        content = json.loads(architecture)
    except ValueError:
        return {}  # `rebuilt` says what is wrong with it.
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    variables = paths.variables_by_path(model)
    return {path: tuple(v.shape) for path, v in variables.items()}


def _names(content: Any, found: dict[str, str] | None = None) -> dict[str, str]:
    """Returns each automatic name with the one it gets, in their order."""
    found = {} if found is None else found
    if isinstance(content, list):
        for entry in content:
            _names(entry, found)
    elif isinstance(content, dict):
        config = content.get("config")
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            _rename(config["name"], str(content.get("class_name")), found)
        for entry in content.values():
            _names(entry, found)
    return found


def _rename(name: str, class_name: str, found: dict[str, str]) -> None:
    base = re.sub(r"_\d+$", "", name)
    # Inputs that were not named are named after their tensors.
    if base not in (paths.snake_case(class_name), "keras_tensor"):
        return
    new, count = base, 0
    while new in found.values() and name not in found:
        count += 1
        new = f"{base}_{count}"
    found.setdefault(name, new)


def _renamed(content: Any, names: dict[str, str], key: str = "") -> Any:
    if isinstance(content, dict):
        # Several outputs may stand in a mapping by names of their own.
        is_list = key in ("input_layers", "output_layers")
        return {
            k: _renamed(v, names, key if is_list else k)
            for k, v in content.items()
        }
    if isinstance(content, list):
        return [_renamed(v, names, key) for v in content]
    places = ("name", "keras_history", "input_layers", "output_layers")
    if isinstance(content, str) and key in places:
        return names.get(content, content)
    return content
