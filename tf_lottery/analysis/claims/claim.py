"""Claims of the paper, and their check against a run.

Two questions are asked of each claim. Does the run show its direction, such as
"tickets are faster"? Does the paper's number agree with the mean that five new
trials like those of the run would have? The second question is asked only if
the run has the paper's settings.
"""

import dataclasses
import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_lottery.analysis import control_draws
from tf_lottery.analysis.estimate import Estimate, estimate
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.verdict import TOO_SHORT

TRIALS = 5
"""The paper's numbers are means of this many trials (Sec. 2)."""

Row = Mapping[str, Any]


class Outcome(enum.StrEnum):
    """Result of a check, of a claim's direction or of its number."""

    SHOWN = "shown"
    CONTRADICTED = "contradicted"
    NOT_SHOWN = "not shown"
    AGREES = "agrees"
    DIFFERS = "differs"
    TOO_FEW = "too few replicates"
    TOO_SHORT = "trained too short"


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number that compares two networks of one replicate.

    Attributes:
        of: Function from the rows of both networks to the number, on the scale
            on which it is averaged over replicates.
        form: Format string of the printed number.
        shown: Increasing function from that scale to the printed one.
        of_stop: Whether the number depends on early-stop steps.
    """

    of: Callable[[Row, Row], float]
    form: str = "{:.2f}"
    shown: Callable[[float], float] = float
    of_stop: bool = False


def _sooner(one: Row, other: Row) -> float:
    return math.log(other["early_stop_step"] / one["early_stop_step"])


# Ratios of steps are averaged as logarithms: in a mean of 1 - one / other, a
# dense network that stopped early by chance would weigh many times more than
# one that stopped late.
EARLIER = Measure(_sooner, "{:.0f} %", lambda x: 100 - 100 * math.exp(-x), True)
"""Percentage of the second network's steps that the first one saves."""

TIMES_AS_FAST = Measure(_sooner, "{:.2f}", math.exp, True)
"""Early-stop step of the second network, divided by the first one's."""

TIMES_AS_LONG = Measure(
    lambda one, other: -_sooner(one, other), "{:.2f}", math.exp, True
)
"""Early-stop step of the first network, divided by the second one's."""

STOP = Measure(lambda one, _: one["early_stop_step"], "{:,.0f}", of_stop=True)
"""Early-stop step of the first network."""


def percent(column: str) -> Measure:
    """Returns the measure of the first network's value, in percent.

    Args:
        column: Column of results.csv with a fraction, in [0, 1].
    """
    return Measure(lambda one, _: 100 * one[column])


def points(column: str) -> Measure:
    """Returns the measure of the difference, in percentage points.

    Args:
        column: Column of results.csv with a fraction, in [0, 1].
    """
    return Measure(
        lambda one, other: 100 * (one[column] - other[column]), "{:+.2f}"
    )


AT_EARLY_STOP = "test_accuracy_at_early_stop"
AT_END = "test_accuracy"


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement of Frankle & Carbin 2019, as numbers.

    Attributes:
        text: The measured quantity, in words.
        source: Section or figure of the paper.
        density: Density of the tickets, in (0, 1]; `None` for the dense
            network.
        of: First network of the measure: a variant, or `"dense"`.
        against: Second network of the measure: a variant, or `"dense"`.
        measure: The measure.
        low: The paper's number, or its lowest reading.
        high: The highest reading; infinity for "at least".
        direction: The claim is that the measure is above this number, at any
            settings. `None` claims a direction at the paper's settings only,
            and only if `high` is infinite: the measure is above `low`.
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
    """The result of a run for one claim.

    Attributes:
        claim: The claim.
        outcome: Result for the direction; for a claim without a direction,
            result for the number.
        number: `Outcome.AGREES` or `Outcome.DIFFERS`; `None` if the run has
            other settings than the paper, or too few replicates.
        measured: Mean of the measure over replicates.
        low: The paper's number is at least this.
        high: The paper's number is at most this.
        ends: 95 % interval of the measured mean, on the printed scale.
    """

    claim: Claim
    outcome: Outcome
    number: Outcome | None
    measured: Estimate
    low: float
    high: float
    ends: tuple[float, float]

    @property
    def mean(self) -> float:
        """The measured mean, on the printed scale."""
        return self.claim.measure.shown(self.measured.mean)

    @property
    def value(self) -> str:
        """The measured mean as text, with its interval if it has one."""
        form = self.claim.measure.form.format
        text = form(self.mean)
        if self.measured.has_interval:
            text += f" ({' to '.join(form(end) for end in self.ends)})"
        return text

    @property
    def band(self) -> str:
        """The paper's number as text."""
        form = self.claim.measure.form.format
        if self.high == math.inf:
            return f"at least {form(self.low)}"
        if form(self.low) == form(self.high):
            return form(self.low)
        return f"{form(self.low)} to {form(self.high)}"

    def __str__(self) -> str:
        paper = f"; the paper: {self.band}" if self.number else ""
        if self.number and self.claim.direction is not None:
            paper += f", which {self.number}"
        return (
            f"{self.outcome}: {self.claim.text}: {self.value}, n = "
            f"{self.measured.n}{paper} ({self.claim.source})"
        )


def check_claims(
    networks: Sequence[Network], claims: Sequence[Claim], published: bool
) -> list[Finding]:
    """Returns the results of a run for claims about networks that it has.

    A direction is shown, or contradicted, by a one-sided t test over
    replicates at 2.5 %. A number agrees if it lies in the 95 % prediction
    interval of the mean of five new trials, mean +- t * sd * sqrt(1/n + 1/5),
    because the paper's mean of five trials has an error too. Claims are tested
    separately: of many, some outcome may be wrong by chance. Draws of a
    control are averaged within their replicate.

    Args:
        networks: Records of all replicates.
        claims: The claims.
        published: Whether the run has the paper's settings; if not, only
            directions are tested.
    """
    networks = control_draws.pool(networks)
    findings = []
    for claim in claims:
        if not published and claim.direction is None:
            continue
        pairs = _pairs(networks, claim)
        values = [_value(claim.measure, *pair) for pair in pairs]
        known = [value for value in values if value is not None]
        if known:
            still_fell = claim.measure.of_stop and any(map(_still_fell, pairs))
            findings.append(_finding(claim, known, published, still_fell))
    return findings


def _finding(
    claim: Claim, values: Sequence[float], published: bool, still_fell: bool
) -> Finding:
    measured, shown = estimate(values), claim.measure.shown
    direction = claim.direction
    if direction is None and claim.high == math.inf:
        direction = claim.low
    ends = measured.low, measured.high
    if measured.has_interval:
        ends = shown(ends[0]), shown(ends[1])
    outcome = number = None
    if direction is not None:
        outcome = Outcome.NOT_SHOWN
        if ends[0] > direction:
            outcome = Outcome.SHOWN
        elif ends[1] < direction:
            outcome = Outcome.CONTRADICTED
    if published and measured.has_interval:
        low, high = map(shown, measured.prediction(TRIALS))
        agrees = low <= claim.high and high >= claim.low
        number = Outcome.AGREES if agrees else Outcome.DIFFERS
    if not measured.has_interval:
        outcome = Outcome.TOO_FEW
    if still_fell:
        outcome, number = Outcome.TOO_SHORT, None
    return Finding(
        claim,
        outcome or number or Outcome.TOO_FEW,
        number,
        measured,
        claim.low,
        claim.high,
        ends,
    )


def _pairs(
    networks: Sequence[Network], claim: Claim
) -> list[tuple[Row | None, Row | None]]:
    """Returns the rows of both networks for each replicate."""
    level = _level_at(networks, claim.density)
    if level is None:
        return []
    rows = {(n.replicate, n.level, n.variant): n.row for n in networks}

    def row(replicate: int, name: str) -> Row | None:
        if name == "dense":
            return rows.get((replicate, 0, "ticket"))
        return rows.get((replicate, level, name))

    return [
        (row(replicate, claim.of), row(replicate, claim.against))
        for replicate in sorted({n.replicate for n in networks})
    ]


def _still_fell(pair: tuple[Row | None, Row | None]) -> bool:
    return any(
        row.get("early_stop_step", 0) > TOO_SHORT * row.get("steps", math.inf)
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
    # A run without test or validation data lacks a column. A network that
    # never learned stops at step 0.
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def _level_at(networks: Sequence[Network], density: float | None) -> int | None:
    """Returns the level nearest to a density, if within 10 % of it."""
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
