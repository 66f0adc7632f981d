"""This package knows how networks are pruned.

Four things, kept apart: a *criterion* scores every weight, an *allocation*
shares the budget among kernels, a *schedule* says how much is left at each
level, and `prune` turns them into masks. A new criterion is a function and
one line in `CRITERIA`.
"""

from collections.abc import Callable, Mapping

import numpy as np

from tf_lottery.core import registry
from tf_lottery.pruning.allocation import ALLOCATIONS
from tf_lottery.pruning.both_ends import (
    large_init_large_final,
    magnitude_increase,
    movement,
)
from tf_lottery.pruning.initial import large_init, small_init
from tf_lottery.pruning.magnitude import magnitude, small_final
from tf_lottery.pruning.prune import keep_best, prune
from tf_lottery.pruning.random import Random
from tf_lottery.pruning.schedule import SCHEDULES

Criterion = Callable[
    [Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    Mapping[str, np.ndarray],
]
"""From kernels trained, and as tickets restart from them, to scores by path.

Higher scores are kept; those of pruned weights are not looked at. The second
mapping is θ0, or θk where the search rewinds to step k, pruned weights
included.
"""

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "small_final": small_final,
    "large_init": large_init,
    "small_init": small_init,
    "large_init_large_final": large_init_large_final,
    "magnitude_increase": magnitude_increase,
    "movement": movement,
    "random": Random(),
}
"""Every criterion by name.

`magnitude` is the paper's; the names of the others, and it as `large_final`,
are those of Zhou et al. 2019 (arXiv:1905.01067).
"""


def find_criterion(
    criterion: str | Criterion, seed: int | None = None
) -> Criterion:
    """Returns the criterion of that name, or the callable itself.

    Args:
        criterion: A name of `CRITERIA`, or a callable.
        seed: Seed of a criterion that draws and is given by name. None: as it
            stands in the table.
    """
    if callable(criterion):
        return criterion
    found = registry.get(CRITERIA, criterion, "criterion")
    if isinstance(found, Random) and seed is not None:
        return Random(seed)
    return found


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
