"""This module knows what every variable of a Keras model is called."""

import re
from collections.abc import Iterator

import keras


def variables_by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns every variable of a model under a path that does not wander.

    A path is the names of the layers from the model down, then the name of
    the variable: `"encoder/dense_1/kernel"`. Keras numbers automatic names
    per process (`dense_7`); here they are numbered within their container, in
    its order, so that the same code gives the same paths wherever and however
    often it runs. Names given by the user stay.

    Args:
        model: A built model. Its masks are left out, as in `model.variables`:
            they are no state of training.

    Returns:
        Path to variable, in the model's order: weights, moving statistics, the
        states of seed generators and of stateful RNNs. A shared variable
        stands once.
    """
    found: dict[str, keras.Variable] = {}
    for path, variable in _walk(model, "", set()):
        unique, count = path, 0
        while unique in found:
            count += 1
            unique = f"{path}_{count}"
        found[unique] = variable
    return found


def layers_by_path(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns every layer of a model by its path, containers included."""
    return dict(_layers(model, "", set()))


def _walk(
    layer: keras.layers.Layer, prefix: str, seen: set[int]
) -> Iterator[tuple[str, keras.Variable]]:
    children = _children(layer)
    for name, child in zip(names(children), children, strict=True):
        yield from _walk(child, f"{prefix}{name}/", seen)
    for variable in [*layer.variables, *_recurrent_states(layer)]:
        if id(variable) not in seen:
            seen.add(id(variable))
            yield prefix + variable.name, variable


def _recurrent_states(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Returns the states of a stateful RNN, which Keras does not list."""
    if not isinstance(layer, keras.layers.RNN) or not layer.stateful:
        return []
    return keras.tree.flatten(layer.states or [])


def _layers(
    layer: keras.layers.Layer, prefix: str, seen: set[int]
) -> Iterator[tuple[str, keras.layers.Layer]]:
    children = _children(layer)
    for name, child in zip(names(children), children, strict=True):
        if id(child) not in seen:
            seen.add(id(child))
            yield prefix + name, child
            yield from _layers(child, f"{prefix}{name}/", seen)


def _children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    # Keras has no public way to the sublayers of a layer that is no model;
    # tests/masking/test_paths.py pins this one.
    found = layer._flatten_layers(include_self=False, recursive=False)
    return list({id(child): child for child in found}.values())


def names(layers: list[keras.layers.Layer]) -> list[str]:
    """Returns names for layers of one container, each its own.

    Automatic names are numbered in this order; names that the user gave stay,
    unless two layers have the same.
    """
    taken = {layer.name for layer in layers if not _automatic(layer)}
    found: list[str] = []
    for layer in layers:
        base = _automatic(layer)
        name, count = base or layer.name, 0
        while name in found or (base and name in taken):
            count += 1
            name = f"{base or layer.name}_{count}"
        found.append(name)
    return found


def _automatic(layer: keras.layers.Layer) -> str:
    """Returns the layer's automatic name without its number, or ""."""
    base = re.sub(r"_\d+$", "", layer.name)
    # So Bidirectional names its two layers.
    plain = re.sub(r"^(forward|backward)_", "", base)
    return base if plain == snake_case(type(layer).__name__) else ""


def snake_case(name: str) -> str:
    """Returns the name that Keras gives layers of a class."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
