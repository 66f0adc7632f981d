"""Stability to the noise of training, by linear mode connectivity.

Two copies of a network, trained from one state with different data orders, are
linearly connected if the error does not rise on the straight line between
them. The state is then called stable (Frankle et al. 2020, arXiv:1912.05671,
Alg. 1 and Sec. 3). Sparse subnetworks that match the dense network are found by
rewinding to stable states.
"""

import bisect
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_lottery.core.errors import UserError

Arrays = Mapping[str, np.ndarray]

POINTS = 30
"""Points on the line, ends included, as in Frankle et al. 2020."""

STABLE = 0.02
"""Barriers below 2 points of error are stable (Frankle et al. 2020)."""


@dataclasses.dataclass(frozen=True)
class LinearPath:
    """Errors on the straight line between two trained networks.

    Attributes:
        alphas: The share of the second network at each point, rising from 0
            to 1, `[points]`.
        errors: Split to the fraction of misclassified examples at each point,
            `[points]`, in [0, 1].
        distance: The Euclidean distance between the two networks' weights,
            without BatchNorm's moving statistics; infinite if one of them
            diverged, and then there are no points.
    """

    alphas: tuple[float, ...]
    errors: Mapping[str, tuple[float, ...]]
    distance: float

    def barrier(self, split: str) -> float:
        """Returns the highest error minus the mean error of the two ends.

        Frankle et al. 2020 call it error barrier, or instability. It is
        infinite if one of the networks diverged.

        Args:
            split: A key of `errors`.

        Example:
            >>> errors = {"test": (0.1, 0.4, 0.2)}
            >>> LinearPath((0.0, 0.5, 1.0), errors, 1.0).barrier("test")
            0.25
        """
        if math.isinf(self.distance):
            return math.inf
        errors = self.errors[split]
        return max(errors) - (errors[0] + errors[-1]) / 2


def interpolate(
    one: Arrays,
    other: Arrays,
    errors: Callable[[Arrays, bool], Mapping[str, float]],
    points: int = POINTS,
) -> LinearPath:
    """Returns the errors on the line between two trained networks.

    Args:
        one: Path to value of the first network's variables.
        other: Path to value of the second network's, of equal architecture.
        errors: Function from variables to the error on each split. Its second
            argument is True between the ends: interpolated moving statistics
            of BatchNorm do not fit the interpolated weights, and must be
            estimated again.
        points: The number of points, ends included, >= 2.

    Returns:
        The line; its ends are the networks themselves, bit for bit.
    """
    alphas = [float(alpha) for alpha in np.linspace(0, 1, points)]
    errors_by_split: dict[str, list[float]] = {}
    for alpha in alphas:
        weights = _between(one, other, alpha)
        for split, error in errors(weights, 0 < alpha < 1).items():
            errors_by_split.setdefault(split, []).append(error)
    return LinearPath(
        tuple(alphas),
        {split: tuple(values) for split, values in errors_by_split.items()},
        _distance(one, other),
    )


def _between(one: Arrays, other: Arrays, alpha: float) -> Arrays:
    if alpha in (0, 1):
        return other if alpha else one
    return {
        path: ((1 - alpha) * value + alpha * other[path]).astype(value.dtype)
        if np.issubdtype(value.dtype, np.floating)
        else value
        for path, value in one.items()
    }


def _distance(one: Arrays, other: Arrays) -> float:
    squares = [
        np.square(value.astype(np.float64) - other[path]).sum()
        for path, value in one.items()
        if np.issubdtype(value.dtype, np.floating) and "/moving_" not in path
    ]
    return math.sqrt(sum(squares))


def candidates(steps: int) -> tuple[int, ...]:
    """Returns the steps at which stability is measured.

    Step 0, and 1/1024, 1/512, …, 1/2 of training. Frankle et al. 2020 find
    that networks become stable after 0 to 20 % of training.

    Args:
        steps: Length of the training in steps, >= 1.

    Example:
        >>> candidates(50)
        (0, 1, 2, 3, 6, 12, 25)
    """
    fractions = (round(steps / 2**power) for power in range(10, 0, -1))
    return tuple(sorted({0, *fractions}))


def first_stable(
    steps: Sequence[int], barrier: Callable[[int], float]
) -> tuple[int, dict[int, float]]:
    """Returns the first stable step, and the barriers that were measured.

    The search is a bisection. It assumes that if one step is stable, later
    steps are too, as Frankle et al. 2020 find.

    Args:
        steps: Candidate steps, rising.
        barrier: Measures the barrier of two copies that separate at a step;
            infinite if one of them diverged.

    Raises:
        UserError: The last candidate is not stable.

    Example:
        >>> first_stable([0, 10, 20, 40], lambda k: 0.1 if k < 15 else 0.0)
        (20, {20: 0.0, 10: 0.1})
    """
    measured: dict[int, float] = {}

    def is_stable(step: int) -> bool:
        measured[step] = barrier(step)
        return measured[step] < STABLE

    first = bisect.bisect_left(steps, True, key=is_stable)
    if first == len(steps):
        last = measured[steps[-1]]
        reason = f"the barrier is {100 * last:.1f} points of error"
        if math.isinf(last):
            reason = "a copy diverged"
        raise UserError(
            f"Training is not stable from step {steps[-1]} on: {reason}, "
            f"and must be below {100 * STABLE:g} points. Give a step as "
            "`rewind`."
        )
    return steps[first], measured
