"""This package knows how networks are pruned.

Four things, kept apart: a *criterion* scores every weight, an *allocation*
shares the budget among kernels, a *schedule* says how much is left at each
level, and `prune` turns them into masks. A new criterion is one file and one
line in `CRITERIA`.
"""

from collections.abc import Callable, Mapping

import numpy as np

from tf_lottery import lookup
from tf_lottery.pruning.allocation import ALLOCATIONS
from tf_lottery.pruning.magnitude import magnitude
from tf_lottery.pruning.prune import keep_best, prune
from tf_lottery.pruning.schedule import SCHEDULES

Criterion = Callable[
    [Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    Mapping[str, np.ndarray],
]
"""From kernels trained, and as training began, to scores; all by path."""

CRITERIA: dict[str, Criterion] = {"magnitude": magnitude}
"""Every criterion by name."""


def find_criterion(criterion: str | Criterion) -> Criterion:
    """Returns the criterion of that name, or the callable itself."""
    if callable(criterion):
        return criterion
    return lookup.find(CRITERIA, criterion, "criterion")


__all__ = [
    "ALLOCATIONS",
    "CRITERIA",
    "SCHEDULES",
    "Criterion",
    "find_criterion",
    "keep_best",
    "prune",
]
