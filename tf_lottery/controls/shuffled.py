"""This module knows the ticket's masks shuffled."""

import numpy as np

from tf_lottery.controls.variant import require_pruned_weights, variant
from tf_lottery.core import seeds
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket


def shuffle(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with its masks shuffled within each kernel.

    Each kernel keeps as many weights as before, at random places, with their
    values at step k. Frankle & Carbin 2019, App. E, compare with "random
    sparsity" and leave open whether it keeps the counts of every layer; here
    it does. Drawing random masks of the same layerwise densities gives the
    same distribution: there is no other control for it.

    Args:
        ticket: The ticket to shuffle, with the whole of its origin.
        seed: Seed of the shuffle, >= 0; levels and kernels shuffle apart.

    Raises:
        ValueError: The ticket comes from a file, which keeps only the weights
            that survive.
    """
    require_pruned_weights(ticket, "shuffle")
    shuffled = {}
    for path, mask in ticket.masks.items():
        draw = seeds.generator(seed, "shuffle", ticket.level, path)
        shuffled[path] = draw.permutation(mask.ravel()).reshape(mask.shape)
    return variant(ticket, "shuffle", masks=Masks(shuffled))


def shuffle_global(ticket: Ticket, seed: int) -> Ticket:
    """Returns the ticket with its masks shuffled across its kernels.

    Only the total is kept: it takes the densities of the layers away too, of
    which Frankle et al. 2021 (arXiv:2009.08576) find that they are all that
    pruning at initialisation knows. `global` of open_lth; Morcos et al. 2019
    (arXiv:1906.02773) also draw the weights anew, here they keep their values
    at step k. Kernels that the ticket leaves whole take no part. At extreme
    sparsity a small kernel may be left without a weight, and the network
    without a signal.

    Args:
        ticket: The ticket to shuffle, with the whole of its origin.
        seed: Seed of the shuffle, >= 0; levels shuffle apart.

    Raises:
        ValueError: The ticket comes from a file, which keeps only the weights
            that survive.
    """
    require_pruned_weights(ticket, "shuffle_global")
    shuffled = dict(ticket.masks)
    cut = [path for path, mask in ticket.masks.items() if not mask.all()]
    if cut:
        bits = np.concatenate([ticket.masks[path].ravel() for path in cut])
        draw = seeds.generator(seed, "shuffle_global", ticket.level)
        ends = np.cumsum([ticket.masks[path].size for path in cut])[:-1]
        parts = np.split(draw.permutation(bits), ends)
        for path, part in zip(cut, parts, strict=True):
            shuffled[path] = part.reshape(ticket.masks[path].shape)
    return variant(ticket, "shuffle_global", masks=Masks(shuffled))
