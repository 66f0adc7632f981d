"""Pruning: from scores to masks.

A *criterion* scores every weight, an *allocation* shares the budget among
kernels, a *schedule* says how many weights are left at each level, and `prune`
turns scores and budget into masks.
"""

from collections.abc import Callable, Mapping

import numpy as np

from tf_lottery.core import registries, registry
from tf_lottery.pruning.allocation import ALLOCATIONS
from tf_lottery.pruning.prune import keep_best, prune
from tf_lottery.pruning.random import Random
from tf_lottery.pruning.schedule import SCHEDULES

Criterion = Callable[
    [Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    Mapping[str, np.ndarray],
]
"""From trained kernels and restart kernels to scores, all by kernel path.

Weights with the highest scores are kept; scores of pruned weights are ignored.
The restart kernels are θ0, or θk if the search rewinds to step k; they include
the pruned weights.
"""

CRITERIA: Mapping[str, Criterion] = registries.CRITERIA
"""Every criterion by name."""


def find_criterion(
    criterion: str | Criterion, seed: int | None = None
) -> Criterion:
    """Returns the criterion of that name, or the callable itself.

    Args:
        criterion: A name of `CRITERIA`, or a callable.
        seed: Seed for the criterion `"random"`, >= 0. `None` keeps its
            default, 0.

    Raises:
        UserError: The name is unknown.
    """
    if callable(criterion):
        return criterion
    scorer = registry.get(CRITERIA, criterion, "criterion")
    if isinstance(scorer, Random) and seed is not None:
        return Random(seed)
    return scorer


__all__ = [
    "ALLOCATIONS",
    "CRITERIA",
    "SCHEDULES",
    "Criterion",
    "Random",
    "find_criterion",
    "keep_best",
    "prune",
]
