"""Controls with random masks of the same total number of weights."""

import numpy as np

from tf_lottery.controls.variant import require_pruned_weights, variant
from tf_lottery.core import seeds
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.pruning import allocation


def random_evenly(ticket: Ticket, seed: int) -> Ticket:
    """Returns random masks of one density for every kernel.

    It replaces the layers' densities by one density ("uniform" of Evci et al.
    2020, arXiv:1911.11134; `even` of open_lth). The total is exact. Weights
    have their values at step k. Kernels that the ticket does not prune stay
    dense.

    Args:
        ticket: The ticket whose total is kept, from a search.
        seed: Seed of the masks, >= 0. Each level and kernel draws differently.

    Raises:
        UserError: The ticket was read from a file, which holds only the
            surviving weights.
    """
    return _random_masks(ticket, seed, "random_evenly", allocation.evenly)


def random_erk(ticket: Ticket, seed: int) -> Ticket:
    """Returns random masks of Erdős–Rényi-Kernel densities.

    Small kernels stay denser, which Evci et al. 2020 (arXiv:1911.11134, Sec. 3)
    find better than equal densities, so this control is harder to beat. The
    total is exact. Weights have their values at step k. Kernels that the ticket
    does not prune stay dense.

    Args:
        ticket: The ticket whose total is kept, from a search.
        seed: Seed of the masks, >= 0. Each level and kernel draws differently.

    Raises:
        UserError: The ticket was read from a file, which holds only the
            surviving weights.
    """
    return _random_masks(ticket, seed, "random_erk", allocation.erk)


def _random_masks(
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
