"""The smallest trained network that loses little on new examples.

One replicate is enough, because the question is about these trained networks
and not about new trainings. The drop of each level against the dense network is
tested on the validation examples, one-sided, from dense to sparse. The first
level that is not shown to lose at most `max_drop` ends the sequence, so a level
that loses more is chosen in at most 2.5 % of cases for any number of levels
(fixed-sequence test, Maurer et al. 1995). Training steps do not matter.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from tf_lottery.analysis.deciding import Deciding, deciding
from tf_lottery.analysis.records import Network
from tf_lottery.core.errors import UserError

CONFIDENCE = 0.975
"""Probability that a chosen level loses at most the allowed drop."""


@dataclasses.dataclass(frozen=True)
class Drop:
    """Loss in the deciding metric of a level against the dense network.

    Attributes:
        level: The level.
        density: Density of the level, in (0, 1].
        drop: Difference to the dense network's metric, in the metric's unit;
            above 0 if the level is worse.
        most: Upper bound of the drop on new examples, with the requested
            confidence.
        error: Standard error of the drop over examples.
        examples: Number of validation examples.
    """

    level: int
    density: float
    drop: float
    most: float
    error: float
    examples: int


def of_decisions(
    one: np.ndarray, dense: np.ndarray, max_drop: float, confidence: float
) -> tuple[float, float, float]:
    """Returns drop, upper bound and standard error of paired decisions.

    The bound is that of the score interval for a difference of paired
    proportions (Tango 1998, Statistics in Medicine 17:891). Unlike the normal
    interval it does not shrink to zero if two networks agree on all of a few
    examples.

    Args:
        one: Whether the network is right, bool `[examples]`.
        dense: Whether the dense network is right, bool `[examples]`.
        max_drop: Drop at which the standard error is computed, in (0, 1).
        confidence: Confidence of the bound, in [0.5, 1).
    """
    n = len(one)
    lost, won = int((dense & ~one).sum()), int((one & ~dense).sum())
    drop = (lost - won) / n
    error = _score_error(lost, won, n, max_drop)
    z = float(stats.norm.ppf(confidence))
    if z == 0:
        return drop, drop, error
    low, high = drop, 1.0
    for _ in range(50):  # the score falls as the assumed drop rises
        middle = (low + high) / 2
        if (drop - middle) > -z * _score_error(lost, won, n, middle):
            low = middle
        else:
            high = middle
    return drop, high, error


def _score_error(lost: int, won: int, n: int, drop: float) -> float:
    """Returns the standard error of a drop under the hypothesis `drop`."""
    # Tango's restricted maximum-likelihood estimate of P(won).
    b = -lost - won + (2 * n - lost + won) * drop
    # The roles of lost and won are those of his x12 and x21.
    c = -won * drop * (1 - drop)
    q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    return math.sqrt(max(n * (2 * q + drop * (1 - drop)), 0.0)) / n


def of_means(
    one: np.ndarray, dense: np.ndarray, metric: Deciding, confidence: float
) -> tuple[float, float, float]:
    """Returns drop, upper bound and standard error of paired values.

    Args:
        one: Metric of each example, float `[examples]`.
        dense: Metric of the dense network, float `[examples]`.
        metric: Deciding metric.
        confidence: Confidence of the bound, in [0.5, 1).
    """
    d = -metric.sign * (one.astype(np.float64) - dense.astype(np.float64))
    if len(d) < 2:
        return float(d.mean()), math.inf, math.inf
    error = float(d.std(ddof=1) / math.sqrt(len(d)))
    t = float(stats.t.ppf(confidence, len(d) - 1))
    return float(d.mean()), float(d.mean() + t * error), error


def drop_between(
    one: np.ndarray,
    dense: np.ndarray,
    metric: Deciding,
    max_drop: float,
    confidence: float = CONFIDENCE,
) -> tuple[float, float, float]:
    """Returns drop, upper bound and standard error, paired by example.

    Args:
        one: Metric of each example, bool or float `[examples]`.
        dense: Metric of the dense network, bool or float `[examples]`.
        metric: Deciding metric.
        max_drop: Largest allowed drop, in the metric's unit, > 0.
        confidence: Confidence of the bound, in [0.5, 1).
    """
    if one.dtype == bool and dense.dtype == bool:
        return of_decisions(one, dense, max_drop, confidence)
    return of_means(one, dense, metric, confidence)


def drops(
    networks: Sequence[Network], max_drop: float, confidence: float
) -> list[Drop]:
    """Returns the drop of each level in the deciding metric of a run.

    Args:
        networks: Records of one replicate; controls are ignored.
        max_drop: Largest allowed drop, in the metric's unit, > 0.
        confidence: Confidence of the upper bounds, in [0.5, 1).

    Raises:
        UserError: There is no validation data, or `max_drop` or `confidence`
            is out of range.
    """
    tickets = {n.level: n for n in networks if n.variant == "ticket"}
    metric = deciding([n.row for n in tickets.values() if not n.level])
    require(max_drop, confidence, metric)
    if any("validation" not in n.per_example for n in tickets.values()):
        raise UserError(NO_VALIDATION)
    results = []
    for level in sorted(tickets.keys() - {0}):
        one, dense = (tickets[k].per_example["validation"] for k in (level, 0))
        numbers = drop_between(one, dense, metric, max_drop, confidence)
        density = tickets[level].row["density"]
        results.append(Drop(level, density, *numbers, len(one)))
    return results


NO_VALIDATION = (
    "How much a ticket loses is measured on validation data: "
    "fit(..., validation_split=0.1) or fit(..., validation_data=(x, y))."
)


def require(max_drop: float, confidence: float, metric: Deciding) -> None:
    """Raises an error if an argument is out of range.

    Args:
        max_drop: Largest allowed drop, in the metric's unit, > 0; for
            fractions below 1.
        confidence: Confidence of the bounds, in [0.5, 1).
        metric: Deciding metric.

    Raises:
        UserError: An argument is out of range.
    """
    most = 1.0 if metric.is_fraction else math.inf
    if not 0 < max_drop < most:
        unit = f"of {metric.title}, in (0, {most:g})"
        raise UserError(
            f"`max_drop` must be a difference {unit}; got {max_drop!r}. "
            "0.005 is half a point of accuracy."
        )
    if not 0.5 <= confidence < 1:
        raise UserError(
            f"`min_confidence` must be in [0.5, 1); got {confidence!r}."
        )


def choose(drops: Sequence[Drop], max_drop: float) -> Drop | None:
    """Returns the smallest level that is shown to lose at most `max_drop`.

    Args:
        drops: Drops of all levels from 1 on, in the order of levels.
        max_drop: Largest allowed drop, in the metric's unit, >= 0.
    """
    chosen = None
    for drop in drops:
        if drop.most >= max_drop:
            break
        chosen = drop
    return chosen


def refusal(
    drops: Sequence[Drop], metric: Deciding, max_drop: float, confidence: float
) -> str:
    """Returns the reason why no level is chosen, and a remedy, in one line.

    Args:
        drops: Drops of all levels from 1 on, in the order of levels.
        metric: Deciding metric.
        max_drop: Largest allowed drop, in the metric's unit, > 0.
        confidence: Confidence of the bounds, in [0.5, 1).
    """
    if not drops:
        return "Only the dense network is trained: there is no smaller one."
    each = ", ".join(
        f"level {d.level} ({100 * d.density:.1f} %) {_change(d.drop, metric)} "
        f"(worst case {_change(d.most, metric)})"
        for d in drops
    )
    allowed = _change(max_drop, metric)
    best = [d for d in drops if d.drop <= max_drop]
    text = (
        f"No ticket is shown to keep validation {metric.title} within "
        f"{allowed} of the dense network's, with {100 * confidence:g} % "
        f"confidence: {each}."
    )
    first = drops[0]
    if first.drop < max_drop and math.isfinite(first.error):
        needed = examples_needed(first, max_drop, confidence)
        text += (
            f" About {needed:,} validation examples would settle level "
            f"{first.level}; there are {first.examples:,}."
        )
    if best:
        level = best[-1].level
        text += (
            f" By the estimates alone level {level} is the smallest: "
            "smallest_ticket(..., min_confidence=0.5), or export --level "
            f"{level}."
        )
    return text


def _change(drop: float, metric: Deciding) -> str:
    return metric.difference(-drop)


def examples_needed(drop: Drop, max_drop: float, confidence: float) -> int:
    """Returns the number of examples that would show that a drop is allowed.

    Args:
        drop: Drop of a level, below `max_drop`.
        max_drop: Largest allowed drop, in the metric's unit, > 0.
        confidence: Confidence of the test, in [0.5, 1).
    """
    z = float(stats.norm.ppf(confidence))
    ratio = z * drop.error / (max_drop - drop.drop)
    return math.ceil(drop.examples * ratio * ratio)
