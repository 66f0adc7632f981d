"""This module knows how a Keras model is written down, without its weights."""

import json
import re
from typing import Any

import keras

from tf_lottery.masking import paths


def architecture_of(model: keras.Model) -> str | None:
    """Returns a model as JSON that `keras.models.model_from_json` reads.

    Names that Keras gave by counting are counted anew, so that the same code
    gives the same text however often it runs in a process.

    Args:
        model: A built model.

    Returns:
        The text; None for a model that cannot be rebuilt from its
        configuration, such as most subclassed ones.
    """
    try:
        content = json.loads(model.to_json())
        content.pop("compile_config", None)
        text = json.dumps(_renamed(content, _names(content)), sort_keys=True)
        rebuilt = keras.models.model_from_json(text)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    if _shapes(rebuilt) != _shapes(model):
        return None
    return text


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
        return {k: _renamed(v, names, k) for k, v in content.items()}
    if isinstance(content, list):
        return [_renamed(v, names, key) for v in content]
    places = ("name", "keras_history", "input_layers", "output_layers")
    if isinstance(content, str) and key in places:
        return names.get(content, content)
    return content
