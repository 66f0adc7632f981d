"""The catch-up step: when a network reaches the dense one's lowest loss."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tf_lottery.analysis.records import Network
from tf_lottery.core.errors import UserError

CATCH_UP, NEVER = "catch_up_step", "never_caught_up"
_STEP, _LOSS = "step", "validation_loss"


def is_measured(network: Network) -> bool:
    """Returns whether a network was evaluated on validation data.

    Args:
        network: Record of the network.
    """
    return bool(len(network.curve.get(_LOSS, ())))


def catch_up_step(network: Network, dense: Network) -> float | None:
    """Returns the first step at which a network is as good as the dense one.

    This is the first evaluation with a validation loss at or below the lowest
    validation loss of the dense network. For the dense network it is the
    early-stop step. The step is never 0, because verdicts take its logarithm:
    a network that is as good before training counts at its first evaluation
    after step 0.

    Each draw of a control has its catch-up step. Their mean is the mean of
    these steps, not the step of the mean curve, which is smoother than each
    curve and has another minimum.

    Args:
        network: Record whose curve has `"step"` and `"validation_loss"`.
        dense: Dense network of the same replicate, with the same columns.

    Returns:
        The step; `None` if the network never catches up. Losses of the dense
        network that are not finite are ignored.

    Raises:
        UserError: A network was not evaluated on validation data.
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
    """Returns networks with the catch-up step in their rows.

    Args:
        networks: Records, dataclasses with a field `row`; draws of controls
            not averaged. In a sweep, where the variant is the run, each run
            has a dense network.
        never: Catch-up step of a network that never catches up, as a multiple
            of the length of its training. A comparison needs a number, and
            twice the length does not favor such a network.

    Returns:
        The networks in the same order, with `catch_up_step` and
        `never_caught_up` (0 or 1) in their rows. Networks without validation
        loss, or without a dense network, are unchanged.
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
    columns = {
        CATCH_UP: never * network.curve[_STEP][-1] if step is None else step,
        NEVER: float(step is None),
    }
    return dataclasses.replace(network, row={**network.row, **columns})
