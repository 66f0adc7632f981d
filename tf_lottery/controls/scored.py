"""This module knows the masks that other scores than the search's find."""

from collections.abc import Mapping

import numpy as np

from tf_lottery import pruning
from tf_lottery.controls.variant import require_pruned_weights, variant
from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket


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
    scores = pruning.CRITERIA["large_init"](kernels, kernels)
    return variant(ticket, "initial_magnitude", masks=_best(ticket, scores))


def inverted(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with the weights that came out the smallest.

    Each kernel keeps as many as before: those of the smallest magnitude at
    the end of the dense network's training, the reverse of one-shot magnitude
    pruning (`small_final` of Zhou et al. 2019, arXiv:1905.01067). If it does
    as well as the ticket, magnitude is not what makes the ticket win.

    Args:
        ticket: The ticket to take the counts of, from a search.
        seed: Not needed: nothing is drawn.

    Raises:
        ValueError: The ticket comes from a file, which keeps neither the
            trained dense network nor the weights that were pruned.
    """
    del seed
    require_pruned_weights(ticket, "inverted")
    if all(mask.all() for mask in ticket.masks.values()):
        return variant(ticket, "inverted")
    if ticket.dense_trained is None:
        raise UserError(
            "The control 'inverted' needs the trained dense network, which a "
            "ticket's file does not hold. Give it a ticket of the search."
        )
    kernels = {path: ticket.dense_trained[path] for path in ticket.masks}
    scores = pruning.CRITERIA["small_final"](kernels, kernels)
    return variant(ticket, "inverted", masks=_best(ticket, scores))


def _best(ticket: Ticket, scores: Mapping[str, np.ndarray]) -> Masks:
    """Returns masks of the best of all weights, as many of each kernel."""
    counts = ticket.masks.counts
    # A kernel of which nothing is left cannot be asked for anything.
    every = {
        path: np.full(mask.shape, counts[path] > 0)
        for path, mask in ticket.masks.items()
    }
    return pruning.keep_best(
        scores,
        Masks(every),
        {(path,): count for path, count in counts.items() if count},
    )
