"""This module knows how a Keras model is written down, without its weights."""

import json
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
        text = json.dumps(_renamed(content, _names(model)), sort_keys=True)
        rebuilt = keras.models.model_from_json(text)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    if _shapes(rebuilt) != _shapes(model):
        return None
    return text


def _shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    variables = paths.variables_by_path(model)
    return {path: tuple(v.shape) for path, v in variables.items()}


def _names(model: keras.Model) -> dict[str, str]:
    every = [model, *paths.layers_by_path(model).values()]
    return dict(
        zip([layer.name for layer in every], paths.names(every), strict=True)
    )


def _renamed(content: Any, names: dict[str, str], key: str = "") -> Any:
    if isinstance(content, dict):
        return {k: _renamed(v, names, k) for k, v in content.items()}
    if isinstance(content, list):
        return [_renamed(v, names, key) for v in content]
    places = ("name", "keras_history", "input_layers", "output_layers")
    if isinstance(content, str) and key in places:
        return names.get(content, content)
    return content
