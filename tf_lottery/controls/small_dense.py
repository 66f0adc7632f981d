"""This module knows the small dense network with as many weights."""

import bisect

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.controls.reinitialized import fresh, kept
from tf_lottery.controls.variant import variant
from tf_lottery.core.errors import UserError, one_line
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.masking.paths import layers_by_path
from tf_lottery.training import State
from tf_lottery.training.state import values

_WIDTHS = ("units", "filters")
_STEPS = 1_000  # widths are tried in steps of a thousandth


def small_dense(ticket: Ticket, seed: int) -> Ticket:
    """Returns a narrower network, dense, with as many weights as the ticket.

    All layers that train but the output are narrowed by one factor, the
    largest under which the masked kernels together have no more weights than
    the ticket keeps: what whoever wants a small network would train without
    pruning (Liu et al. 2019, arXiv:1810.05270). Weights are drawn from the
    layers' initialisers, and training starts at step 0. Frozen layers stay as
    wide as they are, and keep their values. Its density is that of its
    weights among those of the ticket's network.

    Args:
        ticket: The ticket to match, of a model that Keras rebuilds.
        seed: Seed of the weights, >= 0; levels draw differently.

    Raises:
        ValueError: The model cannot be rebuilt or narrowed, or is too large
            even at one unit a layer.
    """
    model = ticket.template()
    kernels = masking.kernels(model)
    _require_outer(model, ticket.masks)
    wide = {k.layer.name for k in kernels.values() if k.role == "output"}
    wide |= {layer.name for layer in model.layers if not _trains(layer)}

    def narrowed(step: int) -> keras.Model:
        return _narrowed(model, step / _STEPS, wide)

    def too_large(step: int) -> bool:
        small = masking.variables_by_path(narrowed(step))
        return _size(small, ticket.masks) > ticket.masks.kept

    steps = range(1, _STEPS + 1)
    step = bisect.bisect_left(steps, True, key=too_large)
    if step == 0:
        raise UserError(
            f"With one unit a layer {model.name!r} still has more than the "
            f"{ticket.masks.kept:,} weights of the ticket at level "
            f"{ticket.level}. Leave out the control 'small_dense'."
        )
    small = narrowed(steps[step - 1])
    masking.carry(model, small)
    variables = masking.variables_by_path(small)
    weights = values(variables) | _frozen(ticket, small)
    for path in weights:
        if path.endswith("seed_generator_state"):
            # The clone's own is drawn by Keras, from nobody's seed.
            weights[path] = ticket.origin.weights[path]
    shapes = {path: tuple(variables[path].shape) for path in ticket.masks}
    made = variant(
        ticket,
        "small_dense",
        masks=Masks.ones(shapes),
        origin=State(0, weights, {}),
        architecture=masking.architecture_of(small),
    )
    return variant(made, "small_dense", origin=fresh(made, seed, "small_dense"))


def _trains(layer: keras.layers.Layer) -> bool:
    return layer.trainable and bool(layer.trainable_variables)


def _require_outer(model: keras.Model, masks: Masks) -> None:
    """Raises if a kernel to be narrowed lies in a model inside the model."""
    paths = {layer.name: path for path, layer in layers_by_path(model).items()}
    for layer in model.layers:
        inner = f"{paths[layer.name]}/"
        if isinstance(layer, keras.Model) and any(
            path.startswith(inner) for path in masks
        ):
            raise UserError(
                f"{model.name!r} cannot be narrowed: it holds the model "
                f"{layer.name!r}, which is pruned too. Leave out the control "
                "'small_dense'."
            )


def _frozen(ticket: Ticket, small: keras.Model) -> dict[str, np.ndarray]:
    """Returns the values that no control changes, of the narrowed model."""
    variables = masking.variables_by_path(small)
    found = {path: ticket.origin.weights[path] for path in kept(small)}
    for path, value in found.items():
        if value.shape != tuple(variables[path].shape):
            raise UserError(
                f"{small.name!r} cannot be narrowed: {path!r} is frozen and "
                "takes the outputs of a layer that would be narrower. Leave "
                "out the control 'small_dense'."
            )
    return found


def _narrowed(model: keras.Model, share: float, wide: set[str]) -> keras.Model:
    def narrow(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in wide:
            for key in _WIDTHS:
                if key in config:
                    config[key] = max(1, round(share * config[key]))
        return type(layer).from_config(config)

    try:
        return keras.models.clone_model(model, clone_function=narrow)
    except (ValueError, TypeError) as error:
        reason = one_line(error)
        raise UserError(
            f"{model.name!r} cannot be narrowed: {reason} Leave out the "
            "control 'small_dense'."
        ) from None


def _size(variables: dict[str, keras.Variable], masks: Masks) -> int:
    return sum(
        int(variables[path].value.shape.num_elements()) for path in masks
    )
