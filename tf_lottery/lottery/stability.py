"""This module knows whether training has become stable to its own noise.

Two copies of a network, trained from one state under different orders of the
data, are linearly connected if the error does not rise on the straight line
between them. Frankle et al. 2020 (arXiv:1912.05671, Alg. 1 and Sec. 3): the
state is stable then, and sparse subnetworks that match the dense network are
found by rewinding to states that are.
"""

import bisect
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_lottery.core.errors import UserError

Arrays = Mapping[str, np.ndarray]

POINTS = 30
"""Points on the line, ends included, as Frankle et al. 2020 take."""

STABLE = 0.02
"""The barrier below which they call a network stable, 2 points of error."""


@dataclasses.dataclass(frozen=True)
class LinearPath:
    """What lies between two trained networks.

    Attributes:
        alphas: The share of the second network at each point, from 0 to 1.
        errors: Split to the fraction of examples classified wrong at each
            point, in [0, 1].
        distance: The Euclidean distance between the two networks' weights,
            BatchNorm's moving statistics left out; infinite if one of them
            diverged, and then there are no points and no errors.
    """

    alphas: tuple[float, ...]
    errors: Mapping[str, tuple[float, ...]]
    distance: float

    def barrier(self, split: str) -> float:
        """Returns how far the highest error lies above the mean of the ends.

        Frankle et al. 2020 call it error barrier, or instability. It is
        infinite if one of the networks diverged.

        Args:
            split: A split that was evaluated.

        Example:
            >>> Line((0.0, 0.5, 1.0), {"test": (0.1, 0.4, 0.2)}, 1.0).barrier(
            ...     "test"
            ... )
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
    """Returns the line between two trained networks of one architecture.

    Args:
        one: Path to value of the first network's variables.
        other: The same of the second.
        errors: From variables to the error on each split. It is also told
            whether the point lies between the ends, where the moving
            statistics of BatchNorm, interpolated, are not those of the
            network there and must be estimated anew.
        points: How many points, ends included.

    Returns:
        The line; its ends are the networks themselves, bit for bit.
    """
    alphas = [float(alpha) for alpha in np.linspace(0, 1, points)]
    found: dict[str, list[float]] = {}
    for alpha in alphas:
        weights = _between(one, other, alpha)
        for split, error in errors(weights, 0 < alpha < 1).items():
            found.setdefault(split, []).append(error)
    return LinearPath(
        tuple(alphas),
        {split: tuple(values) for split, values in found.items()},
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
    """Returns the steps among which the first stable one is sought.

    The beginning, and one part in 1,024, 512, …, 2 of training: Frankle et
    al. 2020 find networks stable from 0 to 20 % of training on.

    Args:
        steps: How long training is.

    Example:
        >>> candidates(50)
        (0, 1, 2, 3, 6, 12, 25)
    """
    parts = {0, *(round(steps / 2**power) for power in range(10, 0, -1))}
    return tuple(sorted(parts))


def first_stable(
    steps: Sequence[int], barrier: Callable[[int], float]
) -> tuple[int, dict[int, float]]:
    """Returns the first stable step, and the barriers that were measured.

    By bisection: it takes for granted that training which is stable from one
    step on is stable from every later one, as Frankle et al. 2020 find.

    Args:
        steps: Candidates, rising.
        barrier: Measures the barrier of two copies that part at a step;
            infinite if one of them diverged.

    Raises:
        ValueError: Even the last is not stable.

    Example:
        >>> first_stable([0, 10, 20, 40], lambda k: 0.1 if k < 15 else 0.0)
        (20, {20: 0.0, 10: 0.1})
    """
    measured: dict[int, float] = {}

    def is_stable(step: int) -> bool:
        measured[step] = barrier(step)
        return measured[step] < STABLE

    place = bisect.bisect_left(steps, True, key=is_stable)
    if place == len(steps):
        last = measured[steps[-1]]
        apart = f"two copies are {100 * last:.1f} points of error apart"
        if math.isinf(last):
            apart = "a copy diverged"
        raise UserError(
            f"Training is not stable from step {steps[-1]} on: {apart}, "
            f"{100 * STABLE:g} points would do. Give `rewind` a step of your "
            "own."
        )
    return steps[place], measured
