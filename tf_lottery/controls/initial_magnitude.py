"""This module knows the masks that training had no part in."""

import numpy as np

from tf_lottery import pruning
from tf_lottery.controls.variant import require_pruned_weights, variant
from tf_lottery.masks import Masks
from tf_lottery.tickets import Ticket


def initial_magnitude(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with the weights that were the largest to begin with.

    Each kernel keeps as many as before, by the magnitude of θ0, or, with
    rewinding, of θk. Frankle & Carbin 2019, App. F.4 and Fig. 18, find it
    worse than the ticket's masks on random weights. Where each kernel has its
    own budget, the criterion `"large_init"` finds the same masks.

    Args:
        ticket: The ticket to take the counts of, with the whole of its origin.
        seed: Not needed: nothing is drawn.

    Raises:
        ValueError: The ticket comes from a file, which keeps only the weights
            that survive.
    """
    del seed
    require_pruned_weights(ticket, "initial_magnitude")
    kernels = {path: ticket.origin.weights[path] for path in ticket.masks}
    counts = ticket.masks.counts
    # A kernel of which nothing is left cannot be asked for anything.
    every = {p: np.full(k.shape, counts[p] > 0) for p, k in kernels.items()}
    masks = pruning.keep_best(
        pruning.CRITERIA["large_init"](kernels, kernels),
        Masks(every),
        {(path,): count for path, count in counts.items() if count},
    )
    return variant(ticket, "initial_magnitude", masks=masks)
