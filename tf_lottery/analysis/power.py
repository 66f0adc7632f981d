"""Power of the verdict, and the number of replicates it needs."""

import dataclasses
import math

from scipy import stats

from tf_lottery.analysis.comparison import Comparison
from tf_lottery.analysis.estimate import ALPHA, FEWEST, quantile

POWER = 0.9
"""Desired probability that a true effect is shown."""

MOST = 1_000
"""Maximum number of replicates that is considered."""


@dataclasses.dataclass(frozen=True)
class Effects:
    """Assumed true effects of the tickets of a level.

    Attributes:
        speed: Mean over trainings of log(dense early-stop step / ticket's
            catch-up step); log(1 / 0.5) if tickets take half the steps.
        speed_sd: Standard deviation of the speed, > 0.
        gain: Mean gain of the deciding metric, in its unit.
        gain_sd: Standard deviation of the gain, > 0.
        margin: Loss of the metric that still counts as no worse, >= 0.
    """

    speed: float
    speed_sd: float
    gain: float
    gain_sd: float
    margin: float

    @classmethod
    def measured(cls, comparison: Comparison, margin: float) -> "Effects":
        """Returns the effects that a run measured.

        Args:
            comparison: Tickets against dense networks over at least three
                replicates.
            margin: Margin of the deciding metric, >= 0.
        """
        speed, gain = comparison.speed, comparison.gain
        return cls(speed.mean, speed.sd, gain.mean, gain.sd, margin)


def power(effects: Effects, replicates: int, alpha: float = ALPHA) -> float:
    """Returns the probability that the verdict names the ticket.

    Both t tests have to succeed; they are assumed to be independent. This is
    the power for the level tested first, which depends on no other level.

    Args:
        effects: Assumed true effects.
        replicates: Number of replicates, >= 3.
        alpha: Error rate of each one-sided test, in (0, 0.5).

    Returns:
        A probability in [0, 1].
    """
    return _t_power(effects.speed, effects.speed_sd, replicates, alpha) * (
        _t_power(
            effects.gain + effects.margin, effects.gain_sd, replicates, alpha
        )
    )


def _t_power(distance: float, sd: float, n: int, alpha: float) -> float:
    """Returns the power of a one-sided t test against a distance."""
    if sd <= 0:
        return float(distance > 0)
    shift = distance / sd * math.sqrt(n)
    critical = quantile(n, alpha)
    # SciPy's noncentral t gives nan far in its tails.
    probability = float(stats.nct.sf(critical, n - 1, shift))
    if math.isfinite(probability):
        return probability
    return float(shift > critical)


def replicates(effects: Effects, wanted: float = POWER) -> int | None:
    """Returns the number of replicates that a desired power needs.

    Args:
        effects: Assumed true effects.
        wanted: Probability that the verdict names the ticket, in (0, 1).

    Returns:
        The number; `None` if it is above `MOST`.
    """
    if effects.speed <= 0 or effects.gain <= -effects.margin:
        return None
    low, high = FEWEST, FEWEST
    while power(effects, high) < wanted:
        low, high = high, 2 * high
        if high > 2 * MOST:
            return None
    while low < high:
        middle = (low + high) // 2
        if power(effects, middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return high if high <= MOST else None
