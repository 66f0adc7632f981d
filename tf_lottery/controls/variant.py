"""This module knows what becomes of a ticket that is made a control."""

import dataclasses

from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import State


def variant(
    ticket: Ticket,
    name: str,
    masks: Masks | None = None,
    origin: State | None = None,
    data_seed: int | None = None,
    architecture: str | None = None,
) -> Ticket:
    """Returns the ticket under another name, as not trained yet.

    Args:
        ticket: The ticket that the control is of; it stays as it is.
        name: The control's name.
        masks: What the control keeps. None: what the ticket keeps.
        origin: What the control restarts from. None: what the ticket does.
        data_seed: The order of its data. None: that of the ticket.
        architecture: Another model, of which masks and origin are then. None:
            that of the ticket.
    """
    return dataclasses.replace(
        ticket,
        variant=name,
        masks=ticket.masks if masks is None else masks,
        origin=ticket.origin if origin is None else origin,
        data_seed=ticket.data_seed if data_seed is None else data_seed,
        architecture=architecture or ticket.architecture,
        dense_size=ticket.dense_size or ticket.masks.size,
        metrics={},
        trained=None,
    )


def require_pruned_weights(ticket: Ticket, name: str) -> None:
    """Raises unless the ticket holds the values of the weights it prunes.

    One that is read from a file holds zeros in their place, of every kernel.
    Zeros in some kernels say nothing: they may have begun so.

    Args:
        ticket: The ticket to make a control of.
        name: The control that needs those values.

    Raises:
        ValueError: It does not hold them.
    """
    pruned = [ticket.origin.weights[p][~m] for p, m in ticket.masks.items()]
    count = sum(values.size for values in pruned)
    if count and not any(values.any() for values in pruned):
        raise UserError(
            f"The control {name!r} needs the values of pruned weights; all "
            f"{count:,} are zero here: a ticket's file holds only the weights "
            "of the ticket. Give it a ticket of the search itself."
        )
