"""This package knows tickets that should lose.

A control is a function from a ticket and a seed to a ticket, and one line in
`CONTROLS`. A ticket is a mask and the weights that it leaves: if it wins
because of both, then taking either away must cost it the win. Controls that
change the weights keep the masks, and the other way round.

Of one that draws, several draws can be asked for: `"reinit*3"` names the
variants `reinit`, `reinit.2` and `reinit.3` of each ticket, as Frankle &
Carbin 2019 draw three.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

from tf_lottery import registries
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
from tf_lottery.core import registry, seeds
from tf_lottery.core.errors import UserError
from tf_lottery.lottery.ticket import Ticket

Control = Callable[[Ticket, int], Ticket]
"""From a ticket and a seed, >= 0, to the ticket that should lose.

Its variant is the control's name, its level that of the ticket; it keeps as
many weights in all, and kernels that the ticket leaves whole stay whole (but
for `small_dense`, which has no more weights, and another shape). The draw is
a function of seed, level and kernel path.
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

_DRAW_NOTHING = ("initial_magnitude", "inverted")

OF_DENSE = ("data_order",)
"""Controls that the dense network has too, of its training from step k on."""


def get(name: str) -> Control:
    """Returns the control of that name."""
    return registry.get(CONTROLS, name, "control")


def variants(names: Iterable[str]) -> dict[str, Control]:
    """Returns what is trained beside each ticket, by the variant's name.

    Args:
        names: Names of controls; `"reinit*3"` is three draws of one.

    Raises:
        ValueError: A name is unknown, or draws no whole number of times.
    """
    found = {}
    for name in names:
        base, times, count = name.partition("*")
        control = get(base)
        if times and not re.fullmatch("[1-9][0-9]*", count):
            raise UserError(
                f"How often a control is drawn is a whole number, as in "
                f"'reinit*3'; got {name!r}."
            )
        if times and base in _DRAW_NOTHING:
            raise UserError(
                f"The control {base!r} draws nothing, so every draw would be "
                f"the same; got {name!r}."
            )
        for draw in range(1, int(count or 1) + 1):
            variant = base if draw == 1 else f"{base}.{draw}"
            found[variant] = control if draw == 1 else _drawn(control, draw)
    return found


def require_theta_k(variants: Iterable[str], reason: str) -> None:
    """Raises if one of these needs weights of step k that are not there.

    Args:
        variants: Names of variants.
        reason: Why there are none.

    Raises:
        ValueError: One does.
    """
    for name in variants:
        base = name.partition(".")[0]
        if base in OF_THETA_K:
            raise UserError(
                f"The control {base!r} needs every weight of the dense network "
                f"at step k, and {reason}. Leave it out."
            )


def require_architecture(
    variants: Iterable[str], architecture: str | None
) -> None:
    """Raises if one of these rebuilds the model and Keras cannot.

    Args:
        variants: Names of variants.
        architecture: The model's, as JSON; None if it cannot be rebuilt.

    Raises:
        ValueError: One is.
    """
    for name in variants:
        base = name.partition(".")[0]
        if architecture is None and base in OF_ARCHITECTURE:
            raise UserError(
                f"The control {base!r} rebuilds the model from its "
                "configuration, and Keras cannot rebuild this one (is its "
                "class registered? has it a lambda, or a layer without "
                f"get_config?). Leave out the control {base!r}."
            )


def of_dense(variants: Mapping[str, Control]) -> dict[str, Control]:
    """Returns those of a ticket's variants that the dense network has too."""
    return {
        name: control
        for name, control in variants.items()
        if name.partition(".")[0] in OF_DENSE
    }


def _drawn(control: Control, draw: int) -> Control:
    def drawn(ticket: Ticket, seed: int) -> Ticket:
        made = control(ticket, seeds.integer(seed, "draw", draw))
        return dataclasses.replace(made, variant=f"{made.variant}.{draw}")

    return drawn


__all__ = [
    "CONTROLS",
    "Control",
    "data_order",
    "find",
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
