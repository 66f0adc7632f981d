"""The control that trains the ticket on data in another order."""

from tf_lottery.controls.variant import variant
from tf_lottery.core import seeds
from tf_lottery.lottery.ticket import Ticket


def data_order(ticket: Ticket, seed: int) -> Ticket:
    """Returns the same ticket, to be trained on the data in another order.

    Batches and augmentation are redrawn; masks, weights and the randomness of
    layers stay. It should *not* lose: its difference to the ticket is the noise
    of training, a yardstick for all other differences. The two are also the
    copies of an instability analysis (Frankle et al. 2020, arXiv:1912.05671,
    Alg. 1).

    Args:
        ticket: The ticket to train again.
        seed: Seed of the order, >= 0. Each level draws a different order.
    """
    order = seeds.integer(seed, "data_order", ticket.level)
    return variant(ticket, "data_order", data_seed=order)
