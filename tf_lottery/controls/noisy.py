"""The control that adds noise to the ticket's weights."""

import numpy as np

from tf_lottery.controls.variant import require_pruned_weights, variant
from tf_lottery.core import seeds
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import State


def noise(ticket: Ticket, seed: int, scale: float = 1.0) -> Ticket:
    """Returns the ticket with Gaussian noise on its surviving weights.

    Frankle & Carbin 2019, App. F.7 and Fig. 25, add noise of 0.5, 1, 2 and 3
    standard deviations of the layer's initializer: half of one barely hurts,
    and three are still better than new random weights. The control shows how
    precisely a ticket needs its weights.

    Args:
        ticket: The ticket to add noise to, from a search.
        seed: Seed of the noise, >= 0. Each level and kernel draws differently.
        scale: Standard deviation of the noise, as a multiple of that of the
            kernel's weights at the start, pruned ones included; >= 0. The
            default, 1, is one of the paper's.

    Raises:
        UserError: The ticket was read from a file, which holds only the
            surviving weights, and not the
            kernel's standard deviation.
    """
    require_pruned_weights(ticket, "noise")
    weights = dict(ticket.origin.weights)
    for path, mask in ticket.masks.items():
        kernel = weights[path]
        draw = seeds.generator(seed, "noise", ticket.level, path)
        added = (
            scale
            * kernel.std(dtype=np.float64)
            * draw.normal(size=kernel.shape)
        )
        noisy = (kernel + added).astype(kernel.dtype)
        weights[path] = np.where(mask, noisy, kernel)
    origin = State(ticket.origin.step, weights, ticket.origin.slots)
    return variant(ticket, "noise", origin=origin)
