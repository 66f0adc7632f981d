"""Records of trained networks and of networks that diverged."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import Diverged


@dataclasses.dataclass(frozen=True)
class Record:
    """The record of one trained network.

    Attributes:
        replicate: Its replicate, >= 0.
        level: Its level, >= 0.
        variant: `"ticket"` or the control's name.
        row: Its row of results.csv.
        curve: Column to values over its evaluations.
        digests: SHA-256 of its masks (`"masks"`), starting state (`"start"`)
            and trained weights (`"trained"`).
        per_example: `"validation"`, `"test"` to the deciding metric of each
            example at early stop, bool or float32 `[examples]`.
    """

    replicate: int
    level: int
    variant: str
    row: Mapping[str, Any]
    curve: Mapping[str, list[float]]
    digests: Mapping[str, str]
    per_example: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DivergedNetwork:
    """The record of one network whose training diverged.

    Attributes:
        replicate: Its replicate, >= 0.
        level: Its level, >= 0.
        variant: `"ticket"` or the control's name.
        outcome: When its loss became nan or infinite.
    """

    replicate: int
    level: int
    variant: str
    outcome: Diverged

    @property
    def step(self) -> int:
        """The first step at which the loss was seen not to be finite."""
        return self.outcome.last

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "DivergedNetwork":
        """Returns the network of a record.json.

        Args:
            record: The file's content, with `"diverged"`.
        """
        content = record["diverged"]
        return cls(
            **record["network"],
            outcome=Diverged(
                content["first_step"],
                content["last_step"],
                float(content["loss"]),
            ),
        )


def diverged_json(ticket: Ticket, outcome: Diverged) -> dict[str, Any]:
    """Returns what a record.json says of a network that diverged.

    Args:
        ticket: The ticket that was trained.
        outcome: How its training diverged.
    """
    return {
        "diverged": {
            "first_step": outcome.first,
            "last_step": outcome.last,
            # JSON has neither nan nor infinity.
            "loss": str(outcome.loss),
        },
        "digests": start_fingerprint(ticket),
    }


def network_json(replicate: int, ticket: Ticket) -> dict[str, Any]:
    """Returns which network of a run a ticket is, as record.json says it.

    Args:
        replicate: The replicate, >= 0.
        ticket: The ticket.
    """
    return {
        "replicate": replicate,
        "level": ticket.level,
        "variant": ticket.variant,
    }


def start_fingerprint(ticket: Ticket) -> dict[str, str]:
    """Returns the fingerprint that identifies a ticket's training.

    Args:
        ticket: The ticket to train.

    Returns:
        Digests of masks and starting state, and the seed of the data order if
        the ticket has one of its own.
    """
    fingerprint = {"masks": ticket.masks.digest, "start": ticket.start.digest}
    if ticket.data_seed is not None:
        fingerprint["data_seed"] = str(ticket.data_seed)
    return fingerprint


def sort_key(row: Mapping[str, Any]) -> tuple[int, int, bool, str]:
    """Returns a key that sorts by replicate and level, tickets first.

    Args:
        row: `replicate`, `level` and `variant` of a network, among others.
    """
    variant = row["variant"]
    return row["replicate"], row["level"], variant != "ticket", variant
