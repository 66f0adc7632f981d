"""Claims of the paper, and what a run says of each: two questions.

Is the direction shown, that tickets are faster, or more accurate? Is the
paper's number one that five new trials could come to, if they are like those of
the run? The second is asked only at the paper's own settings.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_lottery.analysis import control_draws
from tf_lottery.analysis.estimate import Estimate, estimate
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.verdict import TOO_SHORT

SHOWN, CONTRADICTED, NOT_SHOWN = "shown", "contradicted", "not shown"
AGREES, DIFFERS = "agrees", "differs"
TOO_FEW, SHORT = "too few replicates", "trained too short"
OUTCOMES = (SHOWN, CONTRADICTED, NOT_SHOWN, AGREES, DIFFERS, TOO_FEW, SHORT)
"""Outcomes of a claim, of its direction or of a number without one."""

TRIALS = 5
"""Of how many trials the paper's numbers are means (Sec. 2: "five trials")."""

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
EARLIER = Measure(_sooner, "{:.0f} %", lambda x: 100 - 100 * math.exp(-x), True)
"""By how many percent of the other's steps the one stops earlier."""

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
        low: The paper's number, or the lowest that it can be read as.
        high: The highest that it can be read as; infinity for "at least".
        direction: The measure is claimed to be above this, at any settings.
            None: no direction is claimed at other settings than the paper's;
            at those, an open `high` makes `low` the direction.
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
        outcome: One of `OUTCOMES`: whether the direction is shown; of a claim
            without one, whether the number agrees.
        number: Whether the paper's number agrees, `"agrees"` or `"differs"`;
            None where it is not asked: at other settings than the paper's, or
            with too few replicates.
        measured: The measure over replicates, on the scale of its mean.
        low: The paper's number is at least this: see `Claim`.
        high: It is at most this.
        ends: Ends of the 95 % interval of the measured mean.
    """

    claim: Claim
    outcome: str
    number: str | None
    measured: Estimate
    low: float
    high: float
    ends: tuple[float, float]

    @property
    def mean(self) -> float:
        """What was measured, on the scale that is claimed."""
        return self.claim.measure.shown(self.measured.mean)

    @property
    def value(self) -> str:
        """What was measured, as text, with its interval if there is one."""
        form = self.claim.measure.form.format
        text = form(self.mean)
        if self.measured.has_interval:
            text += f" ({' to '.join(form(end) for end in self.ends)})"
        return text

    @property
    def band(self) -> str:
        """The paper's number."""
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
    """Returns what a run says of each claim that it has networks for.

    A direction is shown, or contradicted, by a one-sided t test over
    replicates at 2.5 %. A number agrees if it lies in the 95 % prediction
    interval of the mean of five new trials, mean +- t * sd * sqrt(1/n + 1/5):
    the paper's mean of five trials has an error of its own. Each claim stands
    alone: of many, some outcome may be wrong by chance. Draws of a control are
    averaged within their replicate.

    Args:
        networks: Records of all replicates.
        claims: The claims.
        published: Whether the settings are those that the paper made its
            claims of. At others only directions are asked for.
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
        outcome = NOT_SHOWN
        if ends[0] > direction:
            outcome = SHOWN
        elif ends[1] < direction:
            outcome = CONTRADICTED
    if published and measured.has_interval:
        low, high = map(shown, measured.prediction(TRIALS))
        number = AGREES if low <= claim.high and high >= claim.low else DIFFERS
    if not measured.has_interval:
        outcome = TOO_FEW
    if still_fell:
        outcome, number = SHORT, None
    return Finding(
        claim,
        outcome or number or TOO_FEW,
        number,
        measured,
        claim.low,
        claim.high,
        ends,
    )


def _pairs(
    networks: Sequence[Network], claim: Claim
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
    # A run without test or validation data lacks a column; a network that
    # never learnt stops at step 0.
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def _level_at(networks: Sequence[Network], density: float | None) -> int | None:
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
