"""This module knows tickets that should lose.

A control is a function from a ticket and a seed to a ticket, and one line in
`CONTROLS`. If a ticket wins because of where its weights began and which of
them stay, then taking either away must cost it the win.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from tf_lottery import lookup, seeds
from tf_lottery.masking.paths import layers_by_path
from tf_lottery.masks import Masks
from tf_lottery.tickets import Ticket
from tf_lottery.training import State

Control = Callable[[Ticket, int], Ticket]


def reinit(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket's masks on freshly initialised weights.

    Frankle & Carbin 2019, Sec. 2 and Fig. 4: tickets randomly reinitialised
    learn slower and reach less. All weights are drawn anew from their layers'
    initialisers, and training starts at step 0.

    Args:
        ticket: The ticket to take the masks of.
        seed: Seed of the draw, >= 0; levels draw differently.

    Raises:
        ValueError: The ticket's model cannot be rebuilt, or has a weight
            without an initialiser of its own.
    """
    model = ticket.template()
    weights = dict(ticket.origin.weights)
    for path, layer in layers_by_path(model).items():
        for variable in layer.variables:
            name = f"{path}/{variable.name}"
            if name not in weights:
                continue
            if variable.name == "seed_generator_state":
                weights[name] = weights[name] * np.array([1, 0], "uint32")
            else:
                key = seeds.integer(seed, "reinit", ticket.level, name)
                weights[name] = _draw(layer, variable, name, key)
    return _control(ticket, "reinit", ticket.masks, State(0, weights, {}))


def shuffle(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with its masks shuffled within each kernel.

    Each kernel keeps as many weights as before, at random places, with their
    values at step k. Frankle & Carbin 2019, App. E, compare with "random
    sparsity" and leave open whether it keeps the counts of every layer; here
    it does.

    Args:
        ticket: The ticket to shuffle, with the whole of its origin.
        seed: Seed of the shuffle, >= 0; levels and kernels shuffle apart.

    Raises:
        ValueError: The ticket comes from a file, which keeps only the weights
            that survive.
    """
    shuffled = {}
    for path, mask in ticket.masks.items():
        draw = seeds.generator(seed, "shuffle", ticket.level, path)
        shuffled[path] = draw.permutation(mask.ravel()).reshape(mask.shape)
        new = shuffled[path] & ~mask
        if new.any() and not ticket.origin.weights[path][new].any():
            raise ValueError(
                f"The weights of {path!r} that the shuffled mask keeps are all "
                "zero: a ticket's file holds only the weights of the ticket. "
                "Shuffle a ticket of the search itself."
            )
    return _control(ticket, "shuffle", Masks(shuffled), ticket.origin)


CONTROLS: dict[str, Control] = {"reinit": reinit, "shuffle": shuffle}
"""Every control by name."""


def find(name: str) -> Control:
    """Returns the control of that name."""
    return lookup.find(CONTROLS, name, "control")


def _control(
    ticket: Ticket, variant: str, masks: Masks, origin: State
) -> Ticket:
    return dataclasses.replace(
        ticket,
        variant=variant,
        masks=masks,
        origin=origin,
        metrics={},
        trained=None,
    )


def _draw(
    layer: keras.layers.Layer, variable: keras.Variable, name: str, seed: int
) -> np.ndarray:
    initializer = getattr(layer, f"{variable.name}_initializer", None)
    if not isinstance(initializer, keras.initializers.Initializer):
        raise ValueError(
            f"No initialiser is known for {name!r} of a "
            f"{type(layer).__qualname__} layer (it would be the attribute "
            f"`{variable.name}_initializer`), so it cannot be drawn anew. "
            "Leave out the control 'reinit'."
        )
    config = initializer.get_config()
    if "seed" in config:
        config["seed"] = seed
    fresh = type(initializer).from_config(config)
    value = fresh(variable.shape, dtype=variable.dtype)
    return value.numpy()
