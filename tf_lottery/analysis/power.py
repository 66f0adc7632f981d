"""How many replicates a verdict needs."""

import dataclasses
import math

from scipy import stats

from tf_lottery.analysis.comparison import Comparison
from tf_lottery.analysis.estimate import ALPHA, FEWEST, quantile

POWER = 0.9
"""The probability with which a true effect is to be shown."""

MOST = 1_000
"""Nobody trains more replicates."""


@dataclasses.dataclass(frozen=True)
class Effects:
    """What tickets of a level are supposed to do in truth.

    Attributes:
        speed: Mean over trainings of log(dense early-stop step / ticket's
            catch-up step); log(1 / 0.5) if tickets take half the steps.
        speed_sd: Its standard deviation, > 0.
        gain: Mean gain of the deciding metric, in its unit.
        gain_sd: Its standard deviation, > 0.
        margin: How much worse counts as no worse, >= 0.
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
            comparison: Tickets against dense networks, of three replicates
                or more.
            margin: Margin of the deciding metric.
        """
        speed, gain = comparison.speed, comparison.gain
        return cls(speed.mean, speed.sd, gain.mean, gain.sd, margin)


def power(effects: Effects, replicates: int, alpha: float = ALPHA) -> float:
    """Returns the probability that the verdict names the ticket.

    Both t tests have to succeed; they are taken as independent. It is the
    power of the level that is tested first: no other one has to win before.

    Args:
        effects: What is supposed to be true.
        replicates: Number of replicates, >= 3.
        alpha: Error rate of each one-sided test.

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
    found = float(stats.nct.sf(critical, n - 1, shift))
    return found if math.isfinite(found) else float(shift > critical)


def replicates(effects: Effects, wanted: float = POWER) -> int | None:
    """Returns how many replicates name the ticket with that probability.

    Args:
        effects: What is supposed to be true.
        wanted: The probability, in (0, 1).

    Returns:
        The number; None if no number up to `MOST` does.
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
