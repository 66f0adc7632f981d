"""This module knows what a claim is, and whether a run bears it out."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_lottery.analysis import draws
from tf_lottery.analysis.replicates import Estimate, Replicated, estimate

OUTCOMES = (
    "reproduced",
    "not reproduced",
    "not enough runs",
    "trained too short",
)
"""What can come of a claim; the last if a validation loss still fell."""

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number that two networks of one replicate are compared by.

    Attributes:
        of: From the rows of the one and the other to the number, on the scale
            on which its mean over replicates is taken.
        form: How it is printed.
        shown: From that scale, rising, to the one that is claimed and printed.
        of_stop: Whether it is made of early-stop steps.
    """

    of: Callable[[Row, Row], float]
    form: str = "{:.2f}"
    shown: Callable[[float], float] = float
    of_stop: bool = False


def _sooner(one: Row, other: Row) -> float:
    return math.log(other["early_stop_step"] / one["early_stop_step"])


# Steps are compared by ratios, and the mean of ratios is taken of logarithms:
# 1 - one / other would weigh a dense network that stopped early by chance many
# times more than one that stopped late.
EARLIER = Measure(_sooner, "{:.0%}", lambda x: 1 - math.exp(-x), True)
"""The share of the other's steps that the one stops earlier by."""

TIMES_AS_FAST = Measure(_sooner, "{:.2f}", math.exp, True)
"""The other's early-stop step over the one's."""

TIMES_AS_LONG = Measure(
    lambda one, other: -_sooner(one, other), "{:.2f}", math.exp, True
)
"""The one's early-stop step over the other's."""

STOP = Measure(lambda one, _: one["early_stop_step"], "{:,.0f}", of_stop=True)
"""The one's early-stop step."""


def percent(column: str) -> Measure:
    """Returns the one's value of a column, in percent."""
    return Measure(lambda one, _: 100 * one[column])


def points(column: str) -> Measure:
    """Returns the one's minus the other's, in percentage points."""
    return Measure(
        lambda one, other: 100 * (one[column] - other[column]), "{:+.2f}"
    )


AT_EARLY_STOP = "test_accuracy_at_early_stop"
AT_END = "test_accuracy"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement of Frankle & Carbin 2019, as numbers.

    Attributes:
        text: What is claimed.
        source: Where.
        density: At which density; None: of the dense network.
        of: The variant measured, or `"dense"`.
        against: What it is compared with; `"dense"`: the dense network.
        measure: How.
        low: The smallest number that agrees.
        high: The largest.
        direction: The smallest that agrees at other settings; None: at other
            settings nothing is claimed.
    """

    text: str
    source: str
    density: float | None
    of: str
    against: str
    measure: Measure
    low: float
    high: float = math.inf
    direction: float | None = 0.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a run says of a claim.

    Attributes:
        claim: The claim.
        outcome: One of `OUTCOMES`.
        measured: The number, over replicates.
        low: The smallest number that agrees with the claim here.
        high: The largest.
    """

    claim: Claim
    outcome: str
    measured: Estimate
    low: float
    high: float

    @property
    def number(self) -> str:
        """What was measured, with its interval if there is one."""
        form = self.claim.measure.form.format
        text = form(self.measured.mean)
        if self.measured.has_interval:
            low, high = form(self.measured.low), form(self.measured.high)
            text += f" ({low} to {high})"
        return text

    @property
    def band(self) -> str:
        """What is claimed."""
        form = self.claim.measure.form.format
        if self.high == math.inf:
            return f"at least {form(self.low)}"
        return f"{form(self.low)} to {form(self.high)}"

    def __str__(self) -> str:
        return (
            f"{self.outcome}: {self.claim.text}: {self.number}, n = "
            f"{self.measured.replicates}; claimed {self.band} "
            f"({self.claim.source})"
        )


def hold(
    networks: Sequence[Replicated], claims: Sequence[Claim], published: bool
) -> list[Finding]:
    """Returns what a run says of each claim that it has networks for.

    The mean over replicates has a two-sided 95 % interval of Student's t. A
    claim is reproduced if that lies within the claimed numbers, not
    reproduced if it lies outside, and else there are not enough runs. So
    whatever the truth is, a claim that is false is called reproduced, and one
    that is true not reproduced, in at most 2.5 % of runs each if it has one
    end ("at least"), as many again for a second end. Each claim stands alone:
    of many, some outcome may be wrong by chance. Draws of a control are
    averaged within their replicate. Where a network stops at its last step, its
    validation loss still fell, and when it would stop is not known.

    Args:
        networks: Records of all replicates.
        claims: The claims.
        published: Whether the settings are those that the paper made its
            claims of. At others only directions are asked for.
    """
    networks = draws.pool(networks)
    findings = []
    for claim in claims:
        low, high = claim.low, claim.high
        if not published:
            if claim.direction is None:
                continue
            low, high = claim.direction, math.inf
        pairs = _pairs(networks, claim)
        values = [_value(claim.measure, *pair) for pair in pairs]
        known = [value for value in values if value is not None]
        if known:
            measured = _shown(estimate(known), claim.measure)
            outcome = _outcome(measured, low, high)
            if claim.measure.of_stop and any(map(_still_fell, pairs)):
                outcome = "trained too short"
            findings.append(Finding(claim, outcome, measured, low, high))
    return findings


def _shown(measured: Estimate, measure: Measure) -> Estimate:
    """Returns an estimate on the scale that is claimed and printed."""
    mean = measure.shown(measured.mean)
    if not measured.has_interval:
        return dataclasses.replace(measured, mean=mean)
    low, high = measure.shown(measured.low), measure.shown(measured.high)
    return dataclasses.replace(measured, mean=mean, low=low, high=high)


def _outcome(measured: Estimate, low: float, high: float) -> str:
    if low <= measured.low and measured.high <= high:
        return "reproduced"
    if measured.high < low or measured.low > high:
        return "not reproduced"
    return "not enough runs"


def _pairs(
    networks: Sequence[Replicated], claim: Claim
) -> list[tuple[Row | None, Row | None]]:
    """Returns the rows of both networks, of each replicate."""
    level = _level_at(networks, claim.density)
    if level is None:
        return []
    rows = {(n.replicate, n.level, n.variant): n.row for n in networks}

    def row(replicate: int, name: str) -> Row | None:
        place = (0, "ticket") if name == "dense" else (level, name)
        return rows.get((replicate, *place))

    return [
        (row(replicate, claim.of), row(replicate, claim.against))
        for replicate in sorted({n.replicate for n in networks})
    ]


def _still_fell(pair: tuple[Row | None, Row | None]) -> bool:
    return any(
        row.get("early_stop_step", 0) == row.get("steps")
        for row in pair
        if row is not None
    )


def _value(
    measure: Measure, one: Row | None, other: Row | None
) -> float | None:
    if one is None or other is None:
        return None
    try:
        return measure.of(one, other)
    # A run without test or validation data lacks a column; a network that
    # never learnt stops at step 0.
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def _level_at(
    networks: Sequence[Replicated], density: float | None
) -> int | None:
    """Returns the level nearest to a density, if one is within a tenth."""
    if density is None:
        return 0
    levels = {
        n.level: float(n.row["density"])
        for n in networks
        if n.level and n.variant == "ticket"
    }
    if not levels:
        return None
    level = min(levels, key=lambda n: abs(math.log(levels[n] / density)))
    return level if abs(levels[level] / density - 1) < 0.1 else None
