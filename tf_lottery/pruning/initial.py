"""Criteria that score by initial magnitude."""

from collections.abc import Mapping

import numpy as np


def large_init(
    trained: Mapping[str, np.ndarray], origin: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns abs(initial weight): the smallest initial weights are pruned.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 2); "magnitude at initialisation"
    of Frankle et al. 2021 (arXiv:2009.08576). Frankle & Carbin 2019, App. F.4,
    find it worse than the masks of trained weights on random weights.

    Args:
        trained: Kernel path to trained weights; ignored.
        origin: Kernel path to the weights that tickets restart from: the
            initial ones, or, with rewinding, those of step k.

    Example:
        >>> large_init({}, {"dense/kernel": np.array([-0.5, 0.25])})
        {'dense/kernel': array([0.5 , 0.25])}
    """
    del trained
    return {path: np.abs(kernel) for path, kernel in origin.items()}


def small_init(
    trained: Mapping[str, np.ndarray], origin: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns -abs(initial weight): the largest initial weights are pruned.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 2).

    Args:
        trained: Kernel path to trained weights; ignored.
        origin: Kernel path to the weights that tickets restart from.

    Example:
        >>> small_init({}, {"dense/kernel": np.array([-0.5, 0.25])})
        {'dense/kernel': array([-0.5 , -0.25])}
    """
    return {path: -s for path, s in large_init(trained, origin).items()}
