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
        """The truth is above it with 97.5 % confidence; -inf if n is small."""
        return self.mean - self.half_width()

    @property
    def high(self) -> float:
        """The truth is below it with 97.5 % confidence; inf if n is small."""
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
        """Returns whether a one-sided t test shows the truth to be above.

        Args:
            value: The null hypothesis is a truth of at most this.
            alpha: Error rate of the test, in (0, 0.5).
        """
        return self.mean - self.half_width(alpha) > value

    def is_below(self, value: float, alpha: float = ALPHA) -> bool:
        """Returns whether a one-sided t test shows the truth to be below.

        Args:
            value: The null hypothesis is a truth of at least this.
            alpha: Error rate of the test, in (0, 0.5).
        """
        return self.mean + self.half_width(alpha) < value

    def prediction(self, trials: int) -> tuple[float, float]:
        """Returns where the mean of so many new replicates lies, at 95 %.

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
            example of the validation data. Values that agree by rounding have
            at least the standard deviation of rounding, grain / sqrt(12): a
            t test would take their agreement for certainty.

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
        alpha: Probability above it.
    """
    return float(stats.t.ppf(1 - alpha, n - 1))
