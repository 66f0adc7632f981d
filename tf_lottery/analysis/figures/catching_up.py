"""Networks with their catch-up steps, before draws of a control are pooled."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.analysis import catch_up
from tf_lottery.analysis.figures.style import Drawn


@dataclasses.dataclass(frozen=True)
class Timed:
    """A trained network with its catch-up step.

    Attributes:
        replicate: Its replicate.
        level: Its level.
        variant: `"ticket"`, or the control's name.
        row: Its row of results.csv, and `catch_up_step` and
            `never_caught_up`, 0 or 1.
        curve: Its learning curve.
        per_example: By split, the deciding metric of each example.
    """

    replicate: int
    level: int
    variant: str
    row: Mapping[str, Any]
    curve: Mapping[str, Sequence[float]]
    per_example: Mapping[str, np.ndarray]


def timed(networks: Sequence[Drawn]) -> list[Drawn]:
    """Returns networks whose rows have the catch-up step.

    A network that never catches up has the length of its training. It is
    computed for each draw of a control, and `draws.pool` then takes the mean
    of these steps: that is the mean of what happened. The mean curve of the
    draws is smoother than each draw and would catch up at another step.

    Args:
        networks: Records, draws not pooled. In a sweep, where the variant is
            the run, each run has its own dense network.

    Returns:
        The networks in the same order; those without validation loss, or
        without their dense network, as they are.
    """
    dense = {(n.replicate, n.variant): n for n in networks if not n.level}
    return [
        _timed(
            n,
            dense.get((n.replicate, "ticket"))
            or dense.get((n.replicate, n.variant)),
        )
        for n in networks
    ]


def _timed(network: Drawn, dense: Drawn | None) -> Drawn:
    if dense is None or not all(map(catch_up.is_measured, (network, dense))):
        return network
    step = catch_up.catch_up_step(network, dense)
    measured = {
        "catch_up_step": network.curve["step"][-1] if step is None else step,
        "never_caught_up": float(step is None),
    }
    return Timed(
        network.replicate,
        network.level,
        network.variant,
        {**network.row, **measured},
        network.curve,
        network.per_example,
    )
