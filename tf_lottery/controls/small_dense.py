"""The control that is a smaller dense network."""

import bisect

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.controls.reinitialized import fixed_paths, fresh
from tf_lottery.controls.variant import variant
from tf_lottery.core.errors import UserError, one_line
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.masking.paths import layers_by_path
from tf_lottery.training import State
from tf_lottery.training.state import values

_WIDTHS = ("units", "filters")
_STEPS = 1_000  # Widths are tried in steps of a thousandth.


def small_dense(ticket: Ticket, seed: int) -> Ticket:
    """Returns a narrower network, dense, with as many weights as the ticket.

    It is the baseline of simply training a smaller dense network (Liu et al.
    2019, arXiv:1810.05270). All trainable layers except the output are narrowed
    by one factor, the largest for which the masked kernels together have no
    more weights than the ticket keeps. Weights are drawn from the layers'
    initializers, and training starts at step 0. Frozen layers keep their width
    and their values. The density is relative to the ticket's dense network.

    Args:
        ticket: The ticket to match. Keras must be able to rebuild its model.
        seed: Seed of the weights, >= 0. Each level draws differently.

    Raises:
        UserError: The model cannot be rebuilt or narrowed, or is too large
            even with one unit per layer.
    """
    model = ticket.template()
    kernels = masking.kernels(model)
    _require_not_nested(model, ticket.masks)
    unchanged = {k.layer.name for k in kernels.values() if k.role == "output"}
    unchanged |= {layer.name for layer in model.layers if not _trains(layer)}

    def narrowed(step: int) -> keras.Model:
        return _narrowed(model, step / _STEPS, unchanged)

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
            # Keras draws the clone's without a seed.
            weights[path] = ticket.origin.weights[path]
    shapes = {path: tuple(variables[path].shape) for path in ticket.masks}
    untrained = variant(
        ticket,
        "small_dense",
        masks=Masks.ones(shapes),
        origin=State(0, weights, {}),
        architecture=masking.architecture_of(small),
    )
    origin = fresh(untrained, seed, "small_dense")
    return variant(untrained, "small_dense", origin=origin)


def _trains(layer: keras.layers.Layer) -> bool:
    return layer.trainable and bool(layer.trainable_variables)


def _require_not_nested(model: keras.Model, masks: Masks) -> None:
    """Raises an error if a masked kernel is in a nested model."""
    paths = {layer.name: path for path, layer in layers_by_path(model).items()}
    for layer in model.layers:
        inner = f"{paths[layer.name]}/"
        if isinstance(layer, keras.Model) and any(
            path.startswith(inner) for path in masks
        ):
            raise UserError(
                f"{model.name!r} cannot be narrowed: it contains the model "
                f"{layer.name!r}, which is pruned too. Leave out the control "
                "'small_dense'."
            )


def _frozen(ticket: Ticket, small: keras.Model) -> dict[str, np.ndarray]:
    """Returns the values of `small` that no control changes."""
    variables = masking.variables_by_path(small)
    frozen = {path: ticket.origin.weights[path] for path in fixed_paths(small)}
    for path, value in frozen.items():
        if value.shape != tuple(variables[path].shape):
            raise UserError(
                f"{small.name!r} cannot be narrowed: {path!r} is frozen and "
                "takes the outputs of a layer that would be narrower. Leave "
                "out the control 'small_dense'."
            )
    return frozen


def _narrowed(
    model: keras.Model, share: float, unchanged: set[str]
) -> keras.Model:
    def narrow(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in unchanged:
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
