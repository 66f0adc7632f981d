"""The step at which a network has caught up with its dense network."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tf_lottery.analysis.network import Network

CATCH_UP = "catch_up_step"
_LOSS = "validation_loss"


def catch_up_step(network: Network, dense: Network) -> float | None:
    """Returns the first step with at most the dense network's lowest loss.

    Args:
        network: A network with validation data.
        dense: The dense network of its replicate.

    Returns:
        The step of the first evaluation at which its validation loss is at or
        below the minimum of the dense network's; for the dense network, its
        early-stop step. None if it never is, or if a loss is unknown.
    """
    losses, lowest = network.curve.get(_LOSS), dense.curve.get(_LOSS)
    if not losses or not lowest:
        return None
    target = min(lowest)
    steps = zip(network.curve["step"], losses, strict=True)
    # Step 0 has no logarithm: whoever is as good there is after the first one.
    return next((float(s) for s, v in steps if v <= target and s > 0), None)


def with_catch_up(networks: Sequence[Any]) -> list[Any]:
    """Returns networks with the column `catch_up_step` in their rows.

    A network that never catches up has twice the length of its training
    there, for a comparison needs a number and this one does it no favour.
    Networks without validation data, or without the dense network of their
    replicate, stay as they are.

    Args:
        networks: Records, dataclasses with a field `row`.
    """
    dense = {
        n.replicate: n
        for n in networks
        if n.level == 0 and n.variant == "ticket"
    }
    return [
        _with_catch_up(n, dense[n.replicate]) if n.replicate in dense else n
        for n in networks
    ]


def _with_catch_up(network: Any, dense: Network) -> Any:
    if not network.curve.get(_LOSS) or not dense.curve.get(_LOSS):
        return network
    step = catch_up_step(network, dense)
    if step is None:
        step = 2.0 * max(network.curve["step"])
    return dataclasses.replace(network, row={**network.row, CATCH_UP: step})
