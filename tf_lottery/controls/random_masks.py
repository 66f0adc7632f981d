"""This module knows random masks of the ticket's total, shared otherwise."""

import numpy as np

from tf_lottery.controls.variant import require_pruned_weights, variant
from tf_lottery.core import seeds
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.pruning import allocation


def random_evenly(ticket: Ticket, seed: int) -> Ticket:
    """Returns random masks of one density for every kernel.

    It takes the densities of the layers away, and puts the plainest ones in
    their place ("uniform" of Evci et al. 2020, arXiv:1911.11134; `even` of
    open_lth). The total is exact: see `pruning.allocation.evenly`. Weights
    have their values at step k. Kernels that the ticket leaves whole stay so.

    Args:
        ticket: The ticket to take the total of, with the whole of its origin.
        seed: Seed of the masks, >= 0; levels and kernels draw differently.

    Raises:
        ValueError: The ticket comes from a file, which keeps only the weights
            that survive.
    """
    return _drawn(ticket, seed, "random_evenly", allocation.evenly)


def random_erk(ticket: Ticket, seed: int) -> Ticket:
    """Returns random masks of Erdős–Rényi-Kernel densities.

    Small kernels stay dense, which Evci et al. 2020 (arXiv:1911.11134, Sec. 3)
    find better than even densities: the harder control to beat. The total is
    exact and no density above 1: see `pruning.allocation.erk`. Weights have
    their values at step k. Kernels that the ticket leaves whole stay so.

    Args:
        ticket: The ticket to take the total of, with the whole of its origin.
        seed: Seed of the masks, >= 0; levels and kernels draw differently.

    Raises:
        ValueError: The ticket comes from a file, which keeps only the weights
            that survive.
    """
    return _drawn(ticket, seed, "random_erk", allocation.erk)


def _drawn(
    ticket: Ticket, seed: int, name: str, share: allocation.Allocation
) -> Ticket:
    require_pruned_weights(ticket, name)
    masks = dict(ticket.masks)
    sizes = {path: m.size for path, m in masks.items() if not m.all()}
    if sizes:
        total = sum(int(masks[path].sum()) for path in sizes)
        every = Masks.ones(ticket.masks.shapes)
        for (path,), keep in share(sizes, lambda _: total, every).items():
            draw = seeds.generator(seed, name, ticket.level, path)
            bits = draw.permutation(np.arange(sizes[path]) < keep)
            masks[path] = bits.reshape(masks[path].shape)
    return variant(ticket, name, masks=Masks(masks))
