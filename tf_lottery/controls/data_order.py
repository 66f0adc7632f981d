"""This module knows the ticket under another order of the data."""

from tf_lottery.controls.variant import variant
from tf_lottery.core import seeds
from tf_lottery.lottery.ticket import Ticket


def data_order(ticket: Ticket, seed: int) -> Ticket:
    """Returns the very ticket, to be trained on the data in another order.

    Batches and augmentation are drawn anew; masks, weights and the layers' own
    randomness stay. It should *not* lose: what the two differ by is the noise
    of training, against which all other differences are to be seen. The two
    are also the copies of an instability analysis (Frankle et al. 2020,
    arXiv:1912.05671, Alg. 1).

    Args:
        ticket: The ticket to train otherwise.
        seed: Seed of the order, >= 0; levels differ.
    """
    order = seeds.integer(seed, "data_order", ticket.level)
    return variant(ticket, "data_order", data_seed=order)
