"""This module knows the criterion of the paper: the trained magnitude."""

from collections.abc import Mapping

import numpy as np


def magnitude(
    trained: Mapping[str, np.ndarray], origin: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns abs(trained weight): the smallest trained weights go.

    Frankle & Carbin 2019, Sec. 1; `large_final` of Zhou et al. 2019
    (arXiv:1905.01067).

    Args:
        trained: Kernel path to trained weights.
        origin: Kernel path to the weights that training started from; not
            needed here.

    Example:
        >>> magnitude({"dense/kernel": np.array([-2.0, 1.0])}, {})
        {'dense/kernel': array([2., 1.])}
    """
    del origin
    return {path: np.abs(kernel) for path, kernel in trained.items()}
