"""The catch-up step: when a network is as good as the dense one at its best."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

_STEP, _LOSS = "step", "validation_loss"


class Curved(Protocol):
    """A trained network with its learning curve."""

    @property
    def curve(self) -> Mapping[str, Sequence[float]]:
        """Column to values over its evaluations."""


def is_measured(network: Curved) -> bool:
    """Returns whether a network was evaluated on validation data."""
    return bool(len(network.curve.get(_LOSS, ())))


def catch_up_step(network: Curved, dense: Curved) -> float | None:
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
            raise ValueError(
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
