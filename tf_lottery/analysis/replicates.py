"""This module knows what replicates of a run show together.

A replicate is a new initialisation and a new order of the data. What two
networks differ by is paired by replicate, and its mean is given an interval of
Student's t. A run asks one question a level, so the intervals are wider, by
Bonferroni's correction: with 95 % confidence those of accuracy hold at *all*
levels at once, and so do those of the early-stop step. Draws of a control are
averaged within their replicate first: they are no replicates of each other.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from scipy import stats

from tf_lottery.analysis import deciding, draws
from tf_lottery.analysis.deciding import MARGIN
from tf_lottery.analysis.winning import Trained

ALPHA = 0.05
"""How often, at most, one of a run's intervals of one kind misses its truth."""

FEWEST = 3
"""Fewer replicates have no interval. Two agree by the coarseness of what they
count often enough to be wrong in 15 % of runs of ten levels; three or more keep
to `ALPHA` (tests/test_error_rates.py)."""

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
        low: Lower end of its interval; -inf of fewer than `FEWEST`.
        high: Upper end.
        spread: Standard deviation between replicates; nan of one.
        replicates: How many.
    """

    mean: float
    low: float
    high: float
    spread: float
    replicates: int

    @property
    def has_interval(self) -> bool:
        """Whether there are enough replicates for one."""
        return self.replicates >= FEWEST


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One variant against another, at one level.

    Attributes:
        level: The level.
        gain: Validation accuracy at early stop of the one minus that of the
            other, in [-1, 1]. Of a loss: by how much it is lower, in units
            in which `MARGIN` is the margin that losses have.
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
        needed: About how many replicates more would show it to be winning:
            so many that, if they are like the others, it is as likely as not;
            None if it is decided, or if no number would.
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
    spread = float(np.std(values, ddof=1)) if n > 1 else math.nan
    if n < FEWEST:
        return Estimate(mean, -math.inf, math.inf, spread, n)
    half = _half(spread, n, questions)
    return Estimate(mean, mean - half, mean + half, spread, n)


def _half(spread: float, n: int, questions: int) -> float:
    return _quantile(n, questions) * spread / math.sqrt(n)


@functools.cache
def _quantile(n: int, questions: int) -> float:
    return float(stats.t.ppf(1 - ALPHA / (2 * questions), n - 1))


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
    by_name = {
        (n.replicate, n.level, n.variant): n for n in draws.pool(networks)
    }
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
    metric = deciding.deciding(other)
    step, value = "early_stop_step", metric.column("validation")
    if any(c not in row for c in (step, value) for row in (one, other)):
        return None
    if min(one[step], other[step]) <= 0:
        return None
    # A gain in loss is told as a fraction of the margin that losses have.
    scale = MARGIN / (metric.margin or MARGIN)
    return (
        scale * metric.gain(one[value], other[value]),
        math.log(other[step] / one[step]),
    )


def judge(networks: Sequence[Replicated]) -> list[Verdict]:
    """Returns the verdict on every level but the dense one.

    Tickets win if they stop no later than the dense network and are no less
    accurate, with fewer weights (Frankle & Carbin 2019, Sec. 1). Both must be
    shown: the whole interval of the early-stop step on the right side, that of
    the accuracy above -`MARGIN`. They do not win if one interval lies wholly
    on the wrong side. All else is undecided. So a run, however many levels it
    has, calls some ticket winning that is not in at most `ALPHA` / 2 of all
    cases (both ends must be shown, and each is missed on one side only), and
    one not winning that is in at most `ALPHA` (either end would do).
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
    if have < FEWEST or any(distance <= 0 for _, distance in sides):
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
            levels = _ranges([v.comparison.level for v in these])
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
    elif undecided and count < FEWEST:
        text += f" Train at least {FEWEST}: what fewer differ by is not known."
    dense = [n.row for n in networks if n.level == 0]
    if any(r.get("early_stop_step", 0) == r.get("steps") for r in dense):
        text += (
            " A dense network's validation loss still fell when training "
            "ended: how much sooner tickets stop is not known."
        )
    return text


def _ranges(levels: Sequence[int]) -> str:
    """Returns rising levels as text: 1, 3 to 5."""
    runs: list[list[int]] = []
    for level in levels:
        if runs and level == runs[-1][-1] + 1:
            runs[-1].append(level)
        else:
            runs.append([level])
    return ", ".join(
        f"{run[0]} to {run[-1]}"
        if len(run) > 2
        else ", ".join(str(level) for level in run)
        for run in runs
    )
