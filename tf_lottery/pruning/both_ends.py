"""Criteria that compare trained with initial weights."""

from collections.abc import Mapping

import numpy as np


def magnitude_increase(
    trained: Mapping[str, np.ndarray], origin: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns abs(trained) - abs(initial): weights that shrank most are pruned.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 2), where it performs about
    as well as `magnitude`.

    Args:
        trained: Kernel path to trained weights.
        origin: Kernel path to the weights that tickets restart from: the
            initial ones, or, with rewinding, those of step k.

    Example:
        >>> trained, origin = np.array([-3.0, 1.0]), np.array([1.0, -2.0])
        >>> magnitude_increase({"dense/kernel": trained},
        ...                    {"dense/kernel": origin})
        {'dense/kernel': array([ 2., -1.])}
    """
    return {
        path: np.abs(kernel) - np.abs(origin[path])
        for path, kernel in trained.items()
    }


def movement(
    trained: Mapping[str, np.ndarray], origin: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns abs(trained - initial): weights that moved least are pruned.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 2). Not the "movement pruning" of
    Sanh et al. 2020 (arXiv:2005.07683), which sums weight times gradient.

    Args:
        trained: Kernel path to trained weights.
        origin: Kernel path to the weights that tickets restart from.

    Example:
        >>> trained, origin = np.array([-3.0, 1.0]), np.array([1.0, -2.0])
        >>> movement({"dense/kernel": trained}, {"dense/kernel": origin})
        {'dense/kernel': array([4., 3.])}
    """
    return {
        path: np.abs(kernel - origin[path]) for path, kernel in trained.items()
    }


def large_init_large_final(
    trained: Mapping[str, np.ndarray], origin: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the smaller of the ranks of initial and trained magnitude.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 2) write min(α abs(trained),
    abs(initial)), where α scales both to one range; their code keeps, kernel by
    kernel, the weights above one percentile of both magnitudes. This function
    does the same: the score is the smaller of two fractions, that of the
    kernel's survivors with a smaller trained magnitude, and that with a smaller
    initial magnitude. It needs no α, and scores are comparable between kernels.
    A weight that is exactly zero after training counts as pruned.

    Args:
        trained: Kernel path to trained weights; pruned ones are zero.
        origin: Kernel path to the weights that tickets restart from.

    Example:
        >>> trained = np.array([4.0, -3.0, 2.0, 1.0])
        >>> origin = np.array([0.1, 0.3, -0.4, 0.2])
        >>> large_init_large_final({"dense/kernel": trained},
        ...                        {"dense/kernel": origin})
        {'dense/kernel': array([0.  , 0.5 , 0.25, 0.  ])}
    """
    return {
        path: np.minimum(
            _smaller(kernel, kernel != 0), _smaller(origin[path], kernel != 0)
        )
        for path, kernel in trained.items()
    }


def _smaller(kernel: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Returns for each weight the fraction of survivors that are smaller."""
    sizes = np.abs(kernel).astype(np.float64)
    ordered = np.sort(sizes[alive])
    ranks = np.searchsorted(ordered, sizes) / max(ordered.size, 1)
    # `searchsorted` gives nan a rank; `prune` must see the nan and raise.
    return np.where(np.isnan(sizes), np.nan, ranks)
