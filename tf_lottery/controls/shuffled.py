"""Controls that shuffle the ticket's masks."""

import numpy as np

from tf_lottery.controls.variant import require_pruned_weights, variant
from tf_lottery.core import seeds
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket


def shuffle(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with its masks shuffled within each kernel.

    Each kernel keeps as many weights as before, at random positions, with their
    values at step k. Frankle & Carbin 2019, App. E, compare with "random
    sparsity" and do not say whether it keeps the counts of every layer; this
    control does. It has the same distribution as random masks of the same
    layerwise densities.

    Args:
        ticket: The ticket to shuffle, from a search.
        seed: Seed of the shuffle, >= 0. Each level and kernel has another one.

    Raises:
        UserError: The ticket was read from a file, which holds only the
            surviving weights.
    """
    require_pruned_weights(ticket, "shuffle")
    shuffled = {}
    for path, mask in ticket.masks.items():
        draw = seeds.generator(seed, "shuffle", ticket.level, path)
        shuffled[path] = draw.permutation(mask.ravel()).reshape(mask.shape)
    return variant(ticket, "shuffle", masks=Masks(shuffled))


def shuffle_global(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with its masks shuffled across its kernels.

    Only the total is kept, not the layers' densities. Frankle et al. 2021
    (arXiv:2009.08576) find that these densities are all that pruning at
    initialization learns. This is `global` of open_lth; Morcos et al. 2019
    (arXiv:1906.02773) also redraw the weights, here they keep their values at
    step k. Kernels that the ticket does not prune are left out. At extreme
    sparsity a small kernel may lose every weight, and the network its signal.

    Args:
        ticket: The ticket to shuffle, from a search.
        seed: Seed of the shuffle, >= 0. Each level has another one.

    Raises:
        UserError: The ticket was read from a file, which holds only the
            surviving weights.
    """
    require_pruned_weights(ticket, "shuffle_global")
    shuffled = dict(ticket.masks)
    pruned = [path for path, mask in ticket.masks.items() if not mask.all()]
    if pruned:
        bits = np.concatenate([ticket.masks[path].ravel() for path in pruned])
        draw = seeds.generator(seed, "shuffle_global", ticket.level)
        ends = np.cumsum([ticket.masks[path].size for path in pruned])[:-1]
        parts = np.split(draw.permutation(bits), ends)
        for path, part in zip(pruned, parts, strict=True):
            shuffled[path] = part.reshape(ticket.masks[path].shape)
    return variant(ticket, "shuffle_global", masks=Masks(shuffled))
