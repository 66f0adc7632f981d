"""This module knows the ticket's masks on weights drawn anew."""

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.controls.variant import variant
from tf_lottery.core import seeds
from tf_lottery.core.errors import UserError
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.masking.paths import layers_by_path
from tf_lottery.training import State


def reinit(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket's masks on freshly initialised weights.

    Frankle & Carbin 2019, Sec. 2 and Fig. 4: tickets randomly reinitialised
    learn slower and reach less. All weights are drawn anew from their layers'
    initialisers, and training starts at step 0. Frozen layers keep theirs.

    Args:
        ticket: The ticket to take the masks of.
        seed: Seed of the draw, >= 0; levels draw differently.

    Raises:
        ValueError: The ticket's model cannot be rebuilt, or has a weight
            without an initialiser of its own.
    """
    return variant(ticket, "reinit", origin=fresh(ticket, seed, "reinit"))


def reinit_sign(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket's masks on fresh magnitudes under the old signs.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 3) find that the sign of the
    initial weight is what a ticket needs most of it. As `reinit`, but every
    weight of the masked kernels has the sign that it has in the ticket: that
    of θ0, or, with rewinding, of θk.

    Args:
        ticket: The ticket to take masks and signs of.
        seed: Seed of the draw, >= 0; levels draw differently.

    Raises:
        ValueError: As `reinit`.
    """
    origin = fresh(ticket, seed, "reinit_sign")
    weights = dict(origin.weights)
    for path in ticket.masks:
        weights[path] = np.copysign(weights[path], ticket.origin.weights[path])
    return variant(ticket, "reinit_sign", origin=State(0, weights, {}))


def reinit_sampled(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with its weights drawn from its own, by kernel.

    Frankle & Carbin 2019, App. F.3 and Fig. 17: what survives does not look
    like the initial distribution, but drawing from it does hardly better than
    drawing anew. Each surviving weight becomes one of the kernel's surviving
    weights, independently, so with replacement, as in Google's code for the
    paper; a permutation is `random_reshuffle` of Zhou et al. 2019.

    All else is as the ticket restarts from it. With rewinding the weights are
    those of step k, and each takes along its optimizer slots.

    Args:
        ticket: The ticket to draw from.
        seed: Seed of the draw, >= 0; levels and kernels draw differently.
    """
    weights, slots = dict(ticket.origin.weights), dict(ticket.origin.slots)
    for path, mask in ticket.masks.items():
        kept = np.flatnonzero(mask)
        draw = seeds.generator(seed, "reinit_sampled", ticket.level, path)
        drawn = kept[draw.integers(kept.size, size=kept.size)]
        weights[path] = _taken(weights[path], kept, drawn)
        for name, slot in ticket.origin.slots.items():
            if name.startswith(f"{path}/") and slot.shape == mask.shape:
                slots[name] = _taken(slot, kept, drawn)
    origin = State(ticket.origin.step, weights, slots)
    return variant(ticket, "reinit_sampled", origin=origin)


def _taken(array: np.ndarray, to: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns the array with those of flat index `of` at `to`."""
    flat = array.flatten()
    flat[to] = flat[of]
    return flat.reshape(array.shape)


def fresh(
    ticket: Ticket, seed: int, purpose: str, otherwise: str = ""
) -> State:
    """Returns a state at step 0, drawn from the layers' initialisers.

    What does not train keeps its values: frozen layers, and variables that
    are no weights, such as the mean of a `Normalization`. Moving statistics
    of layers that train begin again.

    Args:
        ticket: Whose model is initialised.
        seed: Seed of the draw, >= 0; levels and purposes draw differently.
        purpose: What it is for: a control, by name, or `"replicate"`.
        otherwise: What the user may do where a weight cannot be drawn. Empty:
            leave out the control.

    Raises:
        ValueError: The model cannot be rebuilt, or has a weight without an
            initialiser of its own.
    """
    model = ticket.template()
    weights = dict(ticket.origin.weights)
    owners = owners_of(model)
    for name, variable in masking.variables_by_path(model).items():
        if variable.name == "seed_generator_state":
            weights[name] = weights[name] * np.array([1, 0], "uint32")
        elif starts_again(owners[id(variable)], variable):
            key = seeds.integer(seed, purpose, ticket.level, name)
            initializer = _initializer(
                owners[id(variable)],
                variable,
                name,
                otherwise or f"Leave out the control {purpose!r}.",
            )
            weights[name] = _drawn(initializer, key, variable)
    return State(0, weights, {})


def kept(model: keras.Model) -> list[str]:
    """Returns the paths of variables to which no control gives other values.

    Args:
        model: A built model.
    """
    owners = owners_of(model)
    return [
        path
        for path, variable in masking.variables_by_path(model).items()
        if not starts_again(owners[id(variable)], variable)
    ]


def starts_again(layer: keras.layers.Layer, variable: keras.Variable) -> bool:
    """Returns whether a variable begins anew where its layer does.

    Args:
        layer: The layer that made the variable.
        variable: One of its own variables.
    """
    if not layer.trainable:
        return False
    is_statistic = variable.name.startswith("moving_")
    return variable.trainable or (
        is_statistic and masking.initializer_of(layer, variable) is not None
    )


def owners_of(model: keras.Model) -> dict[int, keras.layers.Layer]:
    """Returns the innermost layer of each variable, by the variable's id.

    Args:
        model: A built model.
    """
    layers = {"": model, **layers_by_path(model)}.values()
    return {id(v): layer for layer in layers for v in layer.variables}


def _initializer(
    layer: keras.layers.Layer,
    variable: keras.Variable,
    name: str,
    otherwise: str,
) -> keras.initializers.Initializer:
    found = masking.initializer_of(layer, variable)
    if found is None:
        raise UserError(
            f"No initialiser is known for {name!r} of a "
            f"{type(layer).__qualname__} layer (it would be the attribute "
            f"`{variable.name}_initializer`), so it cannot be drawn anew. "
            f"{otherwise}"
        )
    return found


def _drawn(
    initializer: keras.initializers.Initializer,
    seed: int,
    variable: keras.Variable,
) -> np.ndarray:
    config = initializer.get_config()
    if "seed" not in config:
        # As the new layer has it: an LSTM's forget gates begin open.
        return np.array(variable.numpy())
    draw = type(initializer).from_config({**config, "seed": seed})
    return draw(variable.shape, dtype=variable.dtype).numpy()
