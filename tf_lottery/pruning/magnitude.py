"""Criteria that score by trained magnitude."""

from collections.abc import Mapping

import numpy as np


def magnitude(
    trained: Mapping[str, np.ndarray], origin: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns abs(trained weight): the smallest trained weights are pruned.

    Frankle & Carbin 2019, Sec. 1; `large_final` of Zhou et al. 2019
    (arXiv:1905.01067).

    Args:
        trained: Kernel path to trained weights.
        origin: Kernel path to the weights that training restarts from;
            ignored.

    Example:
        >>> magnitude({"dense/kernel": np.array([-2.0, 1.0])}, {})
        {'dense/kernel': array([2., 1.])}
    """
    del origin
    return {path: np.abs(kernel) for path, kernel in trained.items()}


def small_final(
    trained: Mapping[str, np.ndarray], origin: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns -abs(trained weight): the largest trained weights are pruned.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 2). It inverts the scores of
    `magnitude`, as Frankle et al. 2021 (arXiv:2009.08576) do to test whether a
    criterion is informative: the weights it keeps should perform worst.

    Args:
        trained: Kernel path to trained weights.
        origin: Kernel path to the weights that training restarts from;
            ignored.

    Example:
        >>> small_final({"dense/kernel": np.array([-2.0, 1.0])}, {})
        {'dense/kernel': array([-2., -1.])}
    """
    return {path: -s for path, s in magnitude(trained, origin).items()}
