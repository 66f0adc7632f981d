"""Controls with masks from other scores than the search's."""

from collections.abc import Mapping

import numpy as np

from tf_lottery import pruning
from tf_lottery.controls.variant import require_pruned_weights, variant
from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket


def initial_magnitude(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with the largest initial weights.

    Each kernel keeps as many weights as before, by the magnitude of θ0 or, with
    rewinding, of θk. Frankle & Carbin 2019, App. F.4 and Fig. 18, find it
    worse than the ticket's masks on random weights. If each kernel has a
    separate budget, the criterion `"large_init"` yields the same masks.

    Args:
        ticket: The ticket whose counts are kept, from a search.
        seed: Ignored: nothing is drawn.

    Raises:
        UserError: The ticket was read from a file, which holds only the
            surviving weights.
    """
    del seed
    require_pruned_weights(ticket, "initial_magnitude")
    kernels = {path: ticket.origin.weights[path] for path in ticket.masks}
    scores = pruning.CRITERIA["large_init"](kernels, kernels)
    return variant(ticket, "initial_magnitude", masks=_best(ticket, scores))


def inverted(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with the smallest trained weights.

    Each kernel keeps as many weights as before: those with the smallest
    magnitude in the trained dense network, the reverse of one-shot magnitude
    pruning (`small_final` of Zhou et al. 2019, arXiv:1905.01067). If it
    performs as well as the ticket, the ticket does not win by magnitude.

    Args:
        ticket: The ticket whose counts are kept, from a search.
        seed: Ignored: nothing is drawn.

    Raises:
        UserError: The ticket was read from a file, which holds neither the
            trained dense network nor the pruned weights.
    """
    del seed
    require_pruned_weights(ticket, "inverted")
    if all(mask.all() for mask in ticket.masks.values()):
        return variant(ticket, "inverted")
    if ticket.dense_trained is None:
        raise UserError(
            "The control 'inverted' needs the trained dense network, which a "
            "ticket's file does not hold. Pass a ticket of the search."
        )
    kernels = {path: ticket.dense_trained[path] for path in ticket.masks}
    scores = pruning.CRITERIA["small_final"](kernels, kernels)
    return variant(ticket, "inverted", masks=_best(ticket, scores))


def _best(ticket: Ticket, scores: Mapping[str, np.ndarray]) -> Masks:
    """Returns masks of the best weights of each kernel, counts unchanged."""
    counts = ticket.masks.counts
    # A kernel without survivors has no budget.
    every = {
        path: np.full(mask.shape, counts[path] > 0)
        for path, mask in ticket.masks.items()
    }
    return pruning.keep_best(
        scores,
        Masks(every),
        {(path,): count for path, count in counts.items() if count},
    )
