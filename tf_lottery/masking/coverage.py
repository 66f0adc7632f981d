"""This module knows which variables of a model are kernels to mask."""

import dataclasses
import fnmatch
from collections.abc import Iterable

import keras

from tf_lottery import layers, lookup
from tf_lottery.masking import paths

Patterns = str | Iterable[str] | None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel that can carry a mask.

    Attributes:
        path: The kernel's path.
        role: `"conv"`, `"dense"`, or `"output"` for the last one.
        variable: The kernel itself, unmasked.
        layer: The layer that owns it.
    """

    path: str
    role: str
    variable: keras.Variable
    layer: keras.layers.Layer


def kernels(
    model: keras.Model, include: Patterns = None, exclude: Patterns = None
) -> dict[str, Kernel]:
    """Returns the kernels of a model that can be masked, by path.

    Kernels of `Dense` and `Conv2D` layers count, wherever they sit; biases,
    normalisation and frozen layers do not. Frankle & Carbin 2019 mask no
    biases either (its weight counts leave them out, Fig. 2).

    Args:
        model: A built Keras 3 model.
        include: Glob patterns of kernel paths; only these. None: all.
        exclude: Glob patterns of kernel paths; not these.

    Returns:
        Path to kernel, in the model's order.

    Raises:
        TypeError: It is no Keras 3 model.
        ValueError: The model is not built, or nothing is left to mask, or a
            pattern matches no kernel.
    """
    require_model(model)
    known = found(model)
    chosen = _select(list(known), include, exclude)
    if not chosen:
        raise ValueError(
            f"Excluding {exclude!r} leaves no kernel of {list(known)}."
            if known
            else f"Model {model.name!r} has no kernel to mask: no trainable "
            "Dense or Conv2D layer is among its layers."
        )
    return {path: known[path] for path in chosen}


def found(model: keras.Model) -> dict[str, Kernel]:
    """Returns every kernel of a built model that can be masked, by path."""
    variables = paths.variables_by_path(model)
    trainable = {id(v) for v in model.trainable_variables}
    owners = {
        f"{path}/kernel": layer
        for path, layer in paths.layers_by_path(model).items()
        if isinstance(layer, tuple(layers.CATALOGUE))
    }
    known = [p for p in owners if id(variables.get(p)) in trainable]
    # The last of all, frozen or not: freezing a head makes no other the last.
    last = list(owners)[-1] if owners else ""
    return {
        path: Kernel(
            path,
            "output" if path == last else _role(owners[path]),
            variables[path],
            owners[path],
        )
        for path in known
    }


def require_model(model: keras.Model) -> None:
    """Raises unless this is a built Keras 3 model."""
    if not isinstance(model, keras.Model):
        cls = type(model)
        raise TypeError(
            "A Keras 3 model is needed (keras.Model); got "
            f"{cls.__module__}.{cls.__qualname__}."
        )
    if not model.built:
        raise ValueError(
            f"Model {model.name!r} is not built, so it has no weights yet. "
            "Give it a keras.Input, or call it once on data."
        )


def matching(pattern: str, known: list[str]) -> list[str]:
    """Returns the paths that a glob pattern matches.

    Raises:
        ValueError: It matches none; the message suggests the nearest.
    """
    found = [path for path in known if fnmatch.fnmatchcase(path, pattern)]
    if not found:
        raise ValueError(
            f"{pattern!r} matches no kernel.{lookup.nearest(pattern, known)} "
            f"Kernels: {', '.join(known)}."
        )
    return found


def _role(layer: keras.layers.Layer) -> str:
    return "dense" if isinstance(layer, keras.layers.Dense) else "conv"


def _select(
    known: list[str], include: Patterns, exclude: Patterns
) -> list[str]:
    chosen = set(known) if include is None else set()
    for pattern in _patterns(include):
        chosen.update(matching(pattern, known))
    for pattern in _patterns(exclude):
        chosen.difference_update(matching(pattern, known))
    return [path for path in known if path in chosen]


def _patterns(patterns: Patterns) -> list[str]:
    if patterns is None:
        return []
    return [patterns] if isinstance(patterns, str) else list(patterns)
