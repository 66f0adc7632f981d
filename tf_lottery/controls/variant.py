"""From a ticket to an untrained control."""

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
    """Returns an untrained copy of the ticket under another name.

    Args:
        ticket: The ticket of the control; it is not changed.
        name: The control's name.
        masks: Masks of the control. `None` keeps the ticket's.
        origin: State that the control restarts from. `None` keeps the ticket's.
        data_seed: Seed of the order of its data. `None` keeps the ticket's.
        architecture: Configuration of another model that `masks` and `origin`
            belong to. `None` keeps the ticket's.
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
    """Raises an error unless the ticket has the values of pruned weights.

    A ticket read from a file has zeros instead, in every kernel. Zeros in some
    kernels are legal: they may be the initial values.

    Args:
        ticket: The ticket to derive a control from.
        name: The control that needs the values.

    Raises:
        UserError: All values of pruned weights are zero.
    """
    pruned = [ticket.origin.weights[p][~m] for p, m in ticket.masks.items()]
    count = sum(values.size for values in pruned)
    if count and not any(values.any() for values in pruned):
        raise UserError(
            f"The control {name!r} needs the values of pruned weights; all "
            f"{count:,} are zero here: a ticket's file holds only the weights "
            "of the ticket. Pass a ticket of the search itself."
        )
