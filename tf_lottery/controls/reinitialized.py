"""Controls that redraw the ticket's weights."""

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
    """Returns the ticket's masks on newly initialized weights.

    Frankle & Carbin 2019, Sec. 2 and Fig. 4: reinitialized tickets learn
    more slowly and reach lower accuracy. All weights are redrawn from their
    layers' initializers, and training starts at step 0. Frozen layers keep
    their weights.

    Args:
        ticket: The ticket whose masks are kept.
        seed: Seed of the draw, >= 0. Each level draws differently.

    Raises:
        UserError: The ticket's model cannot be rebuilt, or has a weight
            without an initializer.
    """
    return variant(ticket, "reinit", origin=fresh(ticket, seed, "reinit"))


def reinit_sign(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket's masks on new magnitudes with the old signs.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 3) find that a ticket mainly needs
    the signs of its initial weights. All weights are redrawn from their layers'
    initializers; those of masked kernels then get the sign of θ0 or, with
    rewinding, of θk. Training starts at step 0.

    Args:
        ticket: The ticket whose masks and signs are kept.
        seed: Seed of the draw, >= 0. Each level draws differently.

    Raises:
        UserError: The ticket's model cannot be rebuilt, or has a weight
            without an initializer.
    """
    origin = fresh(ticket, seed, "reinit_sign")
    weights = dict(origin.weights)
    for path in ticket.masks:
        weights[path] = np.copysign(weights[path], ticket.origin.weights[path])
    return variant(ticket, "reinit_sign", origin=State(0, weights, {}))


def reinit_sampled(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with its weights resampled within each kernel.

    Frankle & Carbin 2019, App. F.3 and Fig. 17: survivors are not distributed
    like initial weights, but sampling from their distribution is hardly better
    than reinitializing. Each surviving weight becomes one of the kernel's
    surviving weights, drawn independently with replacement, as in Google's code
    for the paper. (`random_reshuffle` of Zhou et al. 2019 is a permutation.)

    All other values are those that the ticket restarts from. With rewinding the
    weights are those of step k, and keep their optimizer slots.

    Args:
        ticket: The ticket to draw from.
        seed: Seed of the draw, >= 0. Each level and kernel draws differently.
    """
    weights, slots = dict(ticket.origin.weights), dict(ticket.origin.slots)
    for path, mask in ticket.masks.items():
        survivors = np.flatnonzero(mask)
        draw = seeds.generator(seed, "reinit_sampled", ticket.level, path)
        count = survivors.size
        sources = survivors[draw.integers(count, size=count)]
        weights[path] = _copied(weights[path], survivors, sources)
        for name, slot in ticket.origin.slots.items():
            if name.startswith(f"{path}/") and slot.shape == mask.shape:
                slots[name] = _copied(slot, survivors, sources)
    origin = State(ticket.origin.step, weights, slots)
    return variant(ticket, "reinit_sampled", origin=origin)


def _copied(
    array: np.ndarray, targets: np.ndarray, sources: np.ndarray
) -> np.ndarray:
    """Returns a copy with values at flat indices copied to other indices."""
    flat = array.flatten()
    flat[targets] = flat[sources]
    return flat.reshape(array.shape)


def fresh(
    ticket: Ticket, seed: int, purpose: str, otherwise: str = ""
) -> State:
    """Returns a state at step 0, drawn from the layers' initializers.

    Frozen layers keep their values, as do variables that are not weights, such
    as the mean of a `Normalization`. Moving statistics of trainable layers are
    initialized again.

    Args:
        ticket: The ticket whose model is initialized.
        seed: Seed of the draw, >= 0. Each level and purpose draws differently.
        purpose: Name of a control, or `"replicate"`.
        otherwise: Advice for the error message if a weight cannot be drawn.
            Empty: "Leave out the control".

    Raises:
        UserError: The model cannot be rebuilt, or has a weight without an
            initializer.
    """
    model = ticket.template()
    weights = dict(ticket.origin.weights)
    owners = owners_of(model)
    for name, variable in masking.variables_by_path(model).items():
        if variable.name == "seed_generator_state":
            weights[name] = weights[name] * np.array([1, 0], "uint32")
        elif is_reinitialized(owners[id(variable)], variable):
            key = seeds.integer(seed, purpose, ticket.level, name)
            initializer = _initializer(
                owners[id(variable)],
                variable,
                name,
                otherwise or f"Leave out the control {purpose!r}.",
            )
            weights[name] = _drawn(initializer, key, variable)
    return State(0, weights, {})


def fixed_paths(model: keras.Model) -> list[str]:
    """Returns the paths of variables that no control changes.

    Args:
        model: A built model.
    """
    owners = owners_of(model)
    return [
        path
        for path, variable in masking.variables_by_path(model).items()
        if not is_reinitialized(owners[id(variable)], variable)
    ]


def is_reinitialized(
    layer: keras.layers.Layer, variable: keras.Variable
) -> bool:
    """Returns whether reinitializing a layer changes the variable.

    Args:
        layer: The layer that created the variable.
        variable: A variable of the layer.
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
    initializer = masking.initializer_of(layer, variable)
    if initializer is None:
        raise UserError(
            f"No initializer is known for {name!r} of a "
            f"{type(layer).__qualname__} layer (it would be the attribute "
            f"`{variable.name}_initializer`), so it cannot be redrawn. "
            f"{otherwise}"
        )
    return initializer


def _drawn(
    initializer: keras.initializers.Initializer,
    seed: int,
    variable: keras.Variable,
) -> np.ndarray:
    config = initializer.get_config()
    if "seed" not in config:
        # The value of the new layer: an LSTM's forget gates start open.
        return np.array(variable.numpy())
    draw = type(initializer).from_config({**config, "seed": seed})
    return draw(variable.shape, dtype=variable.dtype).numpy()
