"""The catch-up step: when a network is as good as the dense one at its best."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tf_lottery.analysis.records import Network
from tf_lottery.core.errors import UserError

CATCH_UP, NEVER = "catch_up_step", "never_caught_up"
_STEP, _LOSS = "step", "validation_loss"


def is_measured(network: Network) -> bool:
    """Returns whether a network was evaluated on validation data."""
    return bool(len(network.curve.get(_LOSS, ())))


def catch_up_step(network: Network, dense: Network) -> float | None:
    """Returns the first step at which a network is as good as the dense one.

    The first evaluation at which its validation loss is at or below the lowest
    validation loss of the dense network. For the dense network itself that
    is its early-stop step. The step is never 0, because verdicts take its
    logarithm: a network as good before any training counts at its first
    evaluation after step 0.

    Several draws of a control have one catch-up step each. Their mean is the
    mean of these steps, not the step of their mean curve: a mean of curves is
    smoother than each of them and reaches another minimum.

    Args:
        network: A network; its curve has `"step"` and `"validation_loss"`.
        dense: The dense network of the same replicate, with the same columns.

    Returns:
        The step; None if the network never is as good. A loss that is not
        finite is never a dense network's lowest.

    Raises:
        ValueError: One of them was not evaluated on validation data.
    """
    for each in (network, dense):
        if not is_measured(each):
            raise UserError(
                "A catch-up step needs learning curves with "
                f"{_LOSS!r}; got {sorted(each.curve)}. Train with validation "
                "data."
            )
    lowest = min(filter(math.isfinite, dense.curve[_LOSS]), default=math.nan)
    points = zip(network.curve[_STEP], network.curve[_LOSS], strict=True)
    is_reached = False
    for step, loss in points:
        is_reached = is_reached or loss <= lowest
        if is_reached and step > 0:
            return float(step)
    return None


def with_catch_up(networks: Sequence[Any], never: float = 2.0) -> list[Any]:
    """Returns networks whose rows have the catch-up step.

    Each draw of a control gets its own, before draws are pooled.

    Args:
        networks: Records, dataclasses with a field `row`; draws not pooled. In
            a sweep, where the variant is the run, each run has its own dense
            network.
        never: A network that never catches up gets this many times the length
            of its training: a comparison needs a number, and twice the length
            does such a network no favour.

    Returns:
        The networks in the same order, with `catch_up_step` and
        `never_caught_up` (0 or 1) in their rows. Those without validation
        loss, or without their dense network, stay as they are.
    """
    dense = {(n.replicate, n.variant): n for n in networks if not n.level}
    return [
        _with_catch_up(
            n,
            dense.get((n.replicate, "ticket"))
            or dense.get((n.replicate, n.variant)),
            never,
        )
        for n in networks
    ]


def _with_catch_up(network: Any, dense: Any, never: float) -> Any:
    if dense is None or not all(map(is_measured, (network, dense))):
        return network
    step = catch_up_step(network, dense)
    found = never * network.curve[_STEP][-1] if step is None else step
    more = {CATCH_UP: found, NEVER: float(step is None)}
    return dataclasses.replace(network, row={**network.row, **more})
