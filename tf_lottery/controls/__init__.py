"""This package knows tickets that should lose.

A control is a function from a ticket and a seed to a ticket, and one line in
`CONTROLS`. A ticket is a mask and the weights that it leaves: if it wins
because of both, then taking either away must cost it the win. Controls that
change the weights keep the masks, and the other way round.

Three of the literature's controls are not in this table, because they need
more than a ticket and a seed: another data order (the same ticket under
another seed of the search), a small dense network with as many weights
(another model), and inverted scores (the criterion `"small_final"`).
"""

from collections.abc import Callable

from tf_lottery import lookup
from tf_lottery.controls.initial_magnitude import initial_magnitude
from tf_lottery.controls.noisy import noise
from tf_lottery.controls.random_masks import random_erk, random_evenly
from tf_lottery.controls.reinitialised import (
    reinit,
    reinit_sampled,
    reinit_sign,
)
from tf_lottery.controls.shuffled import shuffle, shuffle_global
from tf_lottery.tickets import Ticket

Control = Callable[[Ticket, int], Ticket]
"""From a ticket and a seed, >= 0, to the ticket that should lose.

Its variant is the control's name, its level that of the ticket; it keeps as
many weights in all, and kernels that the ticket leaves whole stay whole. The
draw is a function of seed, level and kernel path.
"""

CONTROLS: dict[str, Control] = {
    # Other weights under the ticket's masks.
    "reinit": reinit,
    "reinit_sampled": reinit_sampled,
    "reinit_sign": reinit_sign,
    "noise": noise,
    # Other masks of the same weights.
    "shuffle": shuffle,
    "shuffle_global": shuffle_global,
    "random_evenly": random_evenly,
    "random_erk": random_erk,
    "initial_magnitude": initial_magnitude,
}
"""Every control by name."""


def find(name: str) -> Control:
    """Returns the control of that name."""
    return lookup.find(CONTROLS, name, "control")


__all__ = [
    "CONTROLS",
    "Control",
    "find",
    "initial_magnitude",
    "noise",
    "random_erk",
    "random_evenly",
    "reinit",
    "reinit_sampled",
    "reinit_sign",
    "shuffle",
    "shuffle_global",
]
