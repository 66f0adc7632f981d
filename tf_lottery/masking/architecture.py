"""Models as JSON: their configuration and what layers learned by `adapt`."""

import json
import re
from collections.abc import Mapping
from typing import Any

import keras

from tf_lottery.masking import layer_state, paths

_STATES, _TRAINABLE = "layer_states", "trainable"
"""Keys of data by layer path that Keras' configurations do not hold."""


def architecture_of(model: keras.Model) -> str | None:
    """Returns a model as JSON, from which `rebuilt` makes it again.

    Automatic names of layers are numbered from zero, so that the same code
    gives the same text in every process. Weights are left out. Other state of
    layers, such as vocabularies, is stored under an extra key, which
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
        content = _renamed(content, _new_names(content))
        text = json.dumps(content, sort_keys=True)
        copy = keras.models.model_from_json(text)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    if _shapes(copy) != _shapes(model):
        return None
    extra = {
        _STATES: layer_state.carry(model, copy),
        _TRAINABLE: _set_trainable(copy, _trainable(model)),
    }
    extra = {key: value for key, value in extra.items() if value}
    return json.dumps({**content, **extra}, sort_keys=True) if extra else text


def rebuilt(architecture: str) -> keras.Model:
    """Returns a model made from its JSON, with newly initialized weights.

    Args:
        architecture: A text that `architecture_of` returned.

    Raises:
        Exception: Keras cannot read it, or a layer cannot load its state.
    """
    model = keras.models.model_from_json(architecture)
    layer_state.restore(model, layer_states(architecture))
    _set_trainable(model, _extra(architecture, _TRAINABLE))
    return model


def _trainable(model: keras.Model) -> dict[str, bool]:
    layers = paths.layers_by_path(model)
    return {path: bool(layer.trainable) for path, layer in layers.items()}


def _set_trainable(
    model: keras.Model, flags: Mapping[str, bool]
) -> dict[str, bool]:
    """Freezes or unfreezes layers; returns the flags that changed."""
    layers = paths.layers_by_path(model)
    changed = {}
    # A container sets the flag of its layers too, but it comes before them.
    for path, flag in flags.items():
        if path in layers and bool(layers[path].trainable) != flag:
            layers[path].trainable = flag
            changed[path] = flag
    return changed


def layer_states(architecture: str) -> dict[str, layer_state.LayerState]:
    """Returns the state of layers other than variables, by layer path.

    Args:
        architecture: A text that `architecture_of` returned.
    """
    return _extra(architecture, _STATES)


def _extra(architecture: str, key: str) -> dict[str, Any]:
    try:
        content = json.loads(architecture)
    except ValueError:
        return {}  # `rebuilt` raises an error that says what is wrong.
    extra = content.get(key) if isinstance(content, dict) else None
    return extra if isinstance(extra, dict) else {}


def _shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    variables = paths.variables_by_path(model)
    return {path: tuple(v.shape) for path, v in variables.items()}


def _new_names(
    content: Any, names: dict[str, str] | None = None
) -> dict[str, str]:
    """Returns the automatic names, each with the name that replaces it."""
    names = {} if names is None else names
    if isinstance(content, list):
        for entry in content:
            _new_names(entry, names)
    elif isinstance(content, dict):
        config = content.get("config")
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            _rename(config["name"], str(content.get("class_name")), names)
        for entry in content.values():
            _new_names(entry, names)
    return names


def _rename(name: str, class_name: str, names: dict[str, str]) -> None:
    base = re.sub(r"_\d+$", "", name)
    # Inputs without a name are named after their tensors.
    if base not in (paths.snake_case(class_name), "keras_tensor"):
        return
    new, count = base, 0
    while new in names.values() and name not in names:
        count += 1
        new = f"{base}_{count}"
    names.setdefault(name, new)


def _renamed(content: Any, names: dict[str, str], key: str = "") -> Any:
    if isinstance(content, dict):
        # Several outputs may be in a mapping whose keys are not layer names.
        is_list = key in ("input_layers", "output_layers")
        return {
            k: _renamed(v, names, key if is_list else k)
            for k, v in content.items()
        }
    if isinstance(content, list):
        return [_renamed(v, names, key) for v in content]
    name_keys = ("name", "keras_history", "input_layers", "output_layers")
    if isinstance(content, str) and key in name_keys:
        return names.get(content, content)
    return content
