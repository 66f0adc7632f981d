"""Controls: tickets that should lose.

A ticket is a mask and the weights that it keeps. If it wins because of both,
then changing either one must cost it the win. Controls that change the weights
keep the masks, and vice versa.

A control that draws at random can be drawn several times: `"reinit*3"` trains
the variants `reinit`, `reinit.2` and `reinit.3` of each ticket, as Frankle &
Carbin 2019 draw three.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from tf_lottery.controls.data_order import data_order
from tf_lottery.controls.noisy import noise
from tf_lottery.controls.random_masks import random_erk, random_evenly
from tf_lottery.controls.reinitialized import (
    reinit,
    reinit_sampled,
    reinit_sign,
)
from tf_lottery.controls.scored import initial_magnitude, inverted
from tf_lottery.controls.shuffled import shuffle, shuffle_global
from tf_lottery.controls.small_dense import small_dense
from tf_lottery.core import registries, registry, seeds
from tf_lottery.core import variants as variant_names
from tf_lottery.core.errors import UserError
from tf_lottery.lottery.ticket import Ticket

Control = Callable[[Ticket, int], Ticket]
"""From a ticket and a seed, >= 0, to the ticket that should lose.

The result has the control's name as its variant, and the ticket's level. It
keeps the same total number of weights, and kernels that are dense in the ticket
stay dense (except `small_dense`: at most as many weights, in smaller kernels).
The draw is a function of seed, level and kernel path.
"""

CONTROLS: Mapping[str, Control] = registries.CONTROLS
"""Every control by name."""

OF_THETA_K = (
    "reinit_sign",
    "noise",
    "shuffle",
    "shuffle_global",
    "random_evenly",
    "random_erk",
    "initial_magnitude",
    "inverted",
)
"""Controls that need every weight of the dense network at step k."""

OF_ARCHITECTURE = ("reinit", "reinit_sign", "small_dense")
"""Controls that rebuild the model from its configuration."""

_NOT_RANDOM = ("initial_magnitude", "inverted")

OF_DENSE = ("data_order",)
"""Controls that are also trained for the dense network, from step k on."""


def get(name: str) -> Control:
    """Returns the control of that name.

    Args:
        name: A name of `CONTROLS`.

    Raises:
        UserError: The name is unknown.
    """
    return registry.get(CONTROLS, name, "control")


def variants(names: Iterable[str]) -> dict[str, Control]:
    """Returns the controls to train for each ticket, by variant name.

    Args:
        names: Names of controls; `"reinit*3"` is three draws of `"reinit"`.

    Raises:
        UserError: A name is unknown, its number of draws is not a whole number
            of 1 or more, or the control does not draw at random.
    """
    controls = {}
    for name in names:
        base, draws = variant_names.parse_draws(name)
        control = get(base)
        if base != name and base in _NOT_RANDOM:
            raise UserError(
                f"The control {base!r} draws nothing, so every draw would be "
                f"the same; got {name!r}."
            )
        for draw in range(1, draws + 1):
            variant = variant_names.name(base, draw)
            controls[variant] = control if draw == 1 else _draw(control, draw)
    return controls


def require_theta_k(variants: Iterable[str], reason: str) -> None:
    """Raises an error if a variant needs weights of step k.

    Args:
        variants: Names of variants.
        reason: Why the weights of step k are missing, for the message.

    Raises:
        UserError: A variant needs them.
    """
    for base in map(variant_names.control_of, variants):
        if base in OF_THETA_K:
            raise UserError(
                f"The control {base!r} needs every weight of the dense network "
                f"at step k, and {reason}. Leave it out."
            )


def require_architecture(
    variants: Iterable[str], architecture: str | None
) -> None:
    """Raises an error if a control must rebuild a model that Keras cannot.

    Args:
        variants: Names of variants.
        architecture: The model's configuration as JSON; `None` if Keras cannot
            rebuild the model.

    Raises:
        UserError: A control rebuilds the model, and there is no configuration.
    """
    for base in map(variant_names.control_of, variants):
        if architecture is None and base in OF_ARCHITECTURE:
            raise UserError(
                f"The control {base!r} rebuilds the model from its "
                "configuration, and Keras cannot rebuild this one (is its "
                "class registered? has it a lambda, or a layer without "
                f"get_config?). Leave out the control {base!r}."
            )


def of_dense(variants: Mapping[str, Control]) -> dict[str, Control]:
    """Returns the variants that are also trained for the dense network.

    Args:
        variants: Controls by variant name.
    """
    return {
        name: control
        for name, control in variants.items()
        if variant_names.control_of(name) in OF_DENSE
    }


def _draw(control: Control, draw: int) -> Control:
    def numbered(ticket: Ticket, seed: int) -> Ticket:
        losing = control(ticket, seeds.integer(seed, "draw", draw))
        name = variant_names.name(losing.variant, draw)
        return dataclasses.replace(losing, variant=name)

    return numbered


__all__ = [
    "CONTROLS",
    "Control",
    "data_order",
    "get",
    "initial_magnitude",
    "inverted",
    "noise",
    "of_dense",
    "random_erk",
    "random_evenly",
    "reinit",
    "reinit_sampled",
    "reinit_sign",
    "require_architecture",
    "require_theta_k",
    "shuffle",
    "shuffle_global",
    "small_dense",
    "variants",
]
