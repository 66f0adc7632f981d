"""Schedules: how many weights are left at each level."""

import dataclasses
from collections.abc import Callable, Mapping

from tf_lottery.core import registries, registry


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How pruning proceeds over levels.

    Attributes:
        kept: Function from size, rate and level to the number of weights left.
        from_dense: Whether every level is scored by the trained dense network
            (one-shot) or by the trained network of the previous level
            (iterative).
    """

    kept: Callable[[int, float, int], int]
    from_dense: bool


def geometric(size: int, rate: float, level: int) -> int:
    """Returns how many of `size` weights are left after `level` rounds.

    Each round prunes `round(rate * survivors)` weights, halves to even, so
    that counts are exact integers at every level. Frankle & Carbin 2019 give
    rates per round (Fig. 2) and no rounding. Google's code for the paper rounds
    in this way, but prunes one weight too many.

    Args:
        size: Weights at level 0, >= 1.
        rate: Fraction of the survivors that each round prunes, in [0, 1).
        level: Rounds so far, >= 0.

    Returns:
        Weights left.

    Example:
        >>> [geometric(1000, 0.1, level) for level in range(5)]
        [1000, 900, 810, 729, 656]
    """
    for _ in range(level):
        size -= round(rate * size)
    return size


GEOMETRIC = Schedule(geometric, from_dense=False)
ONE_SHOT = Schedule(geometric, from_dense=True)

SCHEDULES: Mapping[str, Schedule] = registries.SCHEDULES
"""Every schedule by name."""


def get(schedule: str | Schedule) -> Schedule:
    """Returns the schedule of that name, or the object itself.

    Args:
        schedule: A name of `SCHEDULES`, or a `Schedule`.

    Raises:
        UserError: The name is unknown.
    """
    if isinstance(schedule, Schedule):
        return schedule
    return registry.get(SCHEDULES, schedule, "schedule")
