"""This module knows what replicates of a run show together.

A replicate is a new initialisation and a new order of the data. What two
networks differ by is paired by replicate, and its mean is given an interval of
Student's t. A run asks one question a level, so the intervals are wider, by
Bonferroni's correction: with 95 % confidence they *all* hold at once.
"""

import bisect
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from scipy import stats

from tf_lottery.analysis.winning import MARGIN, Trained

ALPHA = 0.05
"""How often, at most, one of a run's intervals misses its truth."""

_MANY = 1_000  # replicates nobody will train


class Replicated(Trained, Protocol):
    """A trained network of one replicate among several."""

    @property
    def replicate(self) -> int:
        """Which replicate."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over replicates.

    Attributes:
        mean: The mean.
        low: Lower end of its interval; -inf of fewer than two replicates.
        high: Upper end.
        spread: Standard deviation between replicates.
        replicates: How many.
    """

    mean: float
    low: float
    high: float
    spread: float
    replicates: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One variant against another, at one level.

    Attributes:
        level: The level.
        gain: Validation accuracy at early stop of the one minus that of the
            other, in [-1, 1].
        sooner: Natural logarithm of the other's early-stop step over the
            one's: above 0 if the one stops sooner.
    """

    level: int
    gain: Estimate
    sooner: Estimate


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether tickets of one level win, over all replicates.

    Attributes:
        comparison: The ticket against the dense network.
        outcome: `"winning"`, `"not winning"` or `"undecided"`.
        needed: About how many replicates more would show it to be winning, if
            these are like the others; None if it is decided, or if no number
            would.
    """

    comparison: Comparison
    outcome: str
    needed: int | None


def estimate(values: Sequence[float], questions: int = 1) -> Estimate:
    """Returns the mean over replicates.

    Args:
        values: One of each replicate.
        questions: Among how many intervals `ALPHA` is shared (Dunn 1961,
            "Multiple comparisons among means").

    Example:
        >>> estimate([1.0, 2.0, 3.0]).mean
        2.0
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, -math.inf, math.inf, math.nan, n)
    spread = float(np.std(values, ddof=1))
    half = _half(spread, n, questions)
    return Estimate(mean, mean - half, mean + half, spread, n)


def _half(spread: float, n: int, questions: int) -> float:
    t = stats.t.ppf(1 - ALPHA / (2 * questions), n - 1)
    return float(t) * spread / math.sqrt(n)


def compare(
    networks: Sequence[Replicated], one: str, other: str
) -> list[Comparison]:
    """Returns how two variants compare, level by level, by replicate.

    Args:
        networks: Records of all replicates.
        one: `"ticket"`, or a control's name.
        other: `"dense"`, `"ticket"`, or a control's name.

    Returns:
        Comparisons of levels from 1 on at which both were trained.
    """
    found: dict[int, list[tuple[float, float]]] = {}
    by_name = {(n.replicate, n.level, n.variant): n for n in networks}
    for (replicate, level, variant), network in sorted(by_name.items()):
        if variant != one or level == 0:
            continue
        name = (
            (replicate, 0, "ticket")
            if other == "dense"
            else (replicate, level, other)
        )
        if name in by_name:
            pair = _difference(network.row, by_name[name].row)
            if pair is not None:
                found.setdefault(level, []).append(pair)
    return [
        Comparison(
            level,
            *(
                estimate(column, len(found))
                for column in zip(*pairs, strict=True)
            ),
        )
        for level, pairs in sorted(found.items())
    ]


def _difference(one: Any, other: Any) -> tuple[float, float] | None:
    step, accuracy = "early_stop_step", "validation_accuracy_at_early_stop"
    if any(c not in row for c in (step, accuracy) for row in (one, other)):
        return None
    if min(one[step], other[step]) <= 0:
        return None
    return (
        one[accuracy] - other[accuracy],
        math.log(other[step] / one[step]),
    )


def judge(networks: Sequence[Replicated]) -> list[Verdict]:
    """Returns the verdict on every level but the dense one.

    Tickets win if they stop no later than the dense network and are no less
    accurate, with fewer weights (Frankle & Carbin 2019, Sec. 1). Both must be
    shown: the whole interval of the early-stop step on the right side, that of
    the accuracy above -`MARGIN`. They do not win if one interval lies wholly
    on the wrong side. All else is undecided. So a run calls a ticket winning
    that is not in at most `ALPHA` of all cases, however many levels it has.
    Validation data alone is looked at.

    Args:
        networks: Records of all replicates.

    Returns:
        Verdicts by level; none without validation data.
    """
    comparisons = compare(networks, "ticket", "dense")
    return [_judge(each, len(comparisons)) for each in comparisons]


def _judge(comparison: Comparison, questions: int) -> Verdict:
    gain, sooner = comparison.gain, comparison.sooner
    if gain.low > -MARGIN and sooner.low >= 0:
        return Verdict(comparison, "winning", None)
    if gain.high < -MARGIN or sooner.high < 0:
        return Verdict(comparison, "not winning", None)
    needed = _needed(
        [(gain, gain.mean + MARGIN), (sooner, sooner.mean)], questions
    )
    return Verdict(comparison, "undecided", needed)


def _needed(
    sides: Sequence[tuple[Estimate, float]], questions: int
) -> int | None:
    """Returns how many replicates more make each half-width its distance."""
    have = sides[0][0].replicates
    if have < 2 or any(distance <= 0 for _, distance in sides):
        return None
    more = bisect.bisect_left(
        range(have + 1, _MANY),
        True,
        key=lambda n: all(
            _half(side.spread, n, questions) < distance
            for side, distance in sides
        ),
    )
    return more + 1 if have + 1 + more < _MANY else None


def sentence(networks: Sequence[Replicated]) -> str:
    """Returns in one sentence which levels win over all replicates."""
    verdicts = judge(networks)
    count = len({n.replicate for n in networks})
    if not verdicts:
        return (
            f"No verdict over {count} replicates: it needs tickets, validation "
            "data and accuracy."
        )
    parts = []
    for outcome in ("winning", "not winning", "undecided"):
        these = [v for v in verdicts if v.outcome == outcome]
        if these:
            levels = ", ".join(str(v.comparison.level) for v in these)
            parts.append(f"{outcome}: level{'s'[: len(these) > 1]} {levels}")
    text = f"Over {count} replicates ({1 - ALPHA:.0%} confidence in all levels "
    text += f"together) {'; '.join(parts)}."
    undecided = [v for v in verdicts if v.outcome == "undecided"]
    needed = [v for v in undecided if v.needed]
    if needed:
        best = min(needed, key=lambda v: v.needed or _MANY)
        text += (
            f" About {best.needed} more would decide level "
            f"{best.comparison.level}."
        )
    elif undecided and count < 3:
        text += " Train at least 3: what so few differ by is hardly known."
    return text
