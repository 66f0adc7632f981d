"""Means over replicates, with Student's t."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

ALPHA = 0.025
"""Error rate of each one-sided test and bound."""

FEWEST = 3
"""Fewer replicates have no interval and no verdict."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over replicates.

    Attributes:
        mean: The mean.
        sd: Standard deviation between replicates, > 0 where the measurement
            is coarse; nan for one replicate.
        n: Number of replicates.
    """

    mean: float
    sd: float
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether there are at least `FEWEST` replicates."""
        return self.n >= FEWEST

    @property
    def low(self) -> float:
        """Lower bound of the true mean at 97.5 %; -inf if n < `FEWEST`."""
        return self.mean - self.half_width()

    @property
    def high(self) -> float:
        """Upper bound of the true mean at 97.5 %; inf if n < `FEWEST`."""
        return self.mean + self.half_width()

    def half_width(self, alpha: float = ALPHA) -> float:
        """Returns the distance of a one-sided bound from the mean.

        Args:
            alpha: Error rate of the bound, in (0, 0.5).
        """
        if not self.has_interval:
            return math.inf
        return quantile(self.n, alpha) * self.sd / math.sqrt(self.n)

    def is_above(self, value: float, alpha: float = ALPHA) -> bool:
        """Returns whether a one-sided t test shows a true mean above a value.

        Args:
            value: The null hypothesis is a true mean of at most this.
            alpha: Error rate of the test, in (0, 0.5).
        """
        return self.mean - self.half_width(alpha) > value

    def is_below(self, value: float, alpha: float = ALPHA) -> bool:
        """Returns whether a one-sided t test shows a true mean below a value.

        Args:
            value: The null hypothesis is a true mean of at least this.
            alpha: Error rate of the test, in (0, 0.5).
        """
        return self.mean + self.half_width(alpha) < value

    def prediction(self, trials: int) -> tuple[float, float]:
        """Returns the 95 % prediction interval of the mean of new replicates.

        Args:
            trials: Number of new replicates, >= 1.
        """
        if not self.has_interval:
            return -math.inf, math.inf
        spread = self.sd * math.sqrt(1 / self.n + 1 / trials)
        half = quantile(self.n, ALPHA) * spread
        return self.mean - half, self.mean + half


def estimate(values: Sequence[float], grain: float = 0.0) -> Estimate:
    """Returns the mean over replicates.

    Args:
        values: One value per replicate.
        grain: Smallest difference that the measurement can show, such as one
            example of the validation data. The standard deviation is at least
            that of rounding, grain / sqrt(12): otherwise a t test would be
            certain of values that agree by rounding.

    Example:
        >>> estimate([1.0, 2.0, 3.0])
        Estimate(mean=2.0, sd=1.0, n=3)
    """
    n = len(values)
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    return Estimate(float(np.mean(values)), max(sd, grain / math.sqrt(12)), n)


@functools.cache
def quantile(n: int, alpha: float) -> float:
    """Returns the upper quantile of Student's t for n replicates.

    Args:
        n: Number of replicates, >= 2.
        alpha: Probability above the quantile, in (0, 1).
    """
    return float(stats.t.ppf(1 - alpha, n - 1))
