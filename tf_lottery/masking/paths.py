"""Stable names for the variables and layers of a Keras model."""

import re
from collections.abc import Iterator

import keras


def variables_by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns every variable of a model by a path that is stable.

    A path joins the names of the layers, from the model down, and the name of
    the variable: `"encoder/dense_1/kernel"`. Keras numbers automatic names
    per process (`dense_7`). In a path they are numbered per container, in its
    order, so that the same code gives the same paths in every process and
    every time it runs. Names that the user chose are unchanged.

    Args:
        model: A built model. Its masks are left out, as in `model.variables`:
            training does not change them.

    Returns:
        Path to variable, in the model's order: weights, moving statistics, the
        states of seed generators and of stateful RNNs. A shared variable
        appears once.
    """
    variables: dict[str, keras.Variable] = {}
    for path, variable in _walk(model, "", set()):
        unique, count = path, 0
        while unique in variables:
            count += 1
            unique = f"{path}_{count}"
        variables[unique] = variable
    return variables


def layers_by_path(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns every layer of a model by its path, containers included.

    Args:
        model: A model. A shared layer appears once.
    """
    return dict(_layers(model, "", set()))


def _walk(
    layer: keras.layers.Layer, prefix: str, seen: set[int]
) -> Iterator[tuple[str, keras.Variable]]:
    children = _children(layer)
    for name, child in zip(unique_names(children), children, strict=True):
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
    for name, child in zip(unique_names(children), children, strict=True):
        if id(child) not in seen:
            seen.add(id(child))
            yield prefix + name, child
            yield from _layers(child, f"{prefix}{name}/", seen)


def _children(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    # Keras has no public way to the sublayers of a layer that is not a model;
    # tests/masking/test_paths.py pins this one.
    children = layer._flatten_layers(include_self=False, recursive=False)
    return list({id(child): child for child in children}.values())


def unique_names(layers: list[keras.layers.Layer]) -> list[str]:
    """Returns unique names for the layers of one container.

    Automatic names are numbered in this order. Names that the user chose are
    unchanged, unless two layers have the same name.

    Args:
        layers: The layers, in the order of the container.
    """
    chosen = {layer.name for layer in layers if not _automatic_name(layer)}
    names: list[str] = []
    for layer in layers:
        base = _automatic_name(layer)
        name, count = base or layer.name, 0
        while name in names or (base and name in chosen):
            count += 1
            name = f"{base or layer.name}_{count}"
        names.append(name)
    return names


def _automatic_name(layer: keras.layers.Layer) -> str:
    """Returns the layer's automatic name without its number, or ""."""
    base = re.sub(r"_\d+$", "", layer.name)
    # Bidirectional adds these prefixes to the names of its two layers.
    plain = re.sub(r"^(forward|backward)_", "", base)
    return base if plain == snake_case(type(layer).__name__) else ""


def snake_case(name: str) -> str:
    """Returns the automatic name that Keras derives from a class name.

    Args:
        name: The name of a class: `"MyDense"` gives `"my_dense"`.
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
