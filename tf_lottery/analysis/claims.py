"""This module knows what the paper claims, and whether a run bears it out.

A claim is published for a network, a data set and a setting. At other settings
(the quick scale) only its direction is asked for.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_lottery.analysis.replicates import Estimate, Replicated, estimate

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement of Frankle & Carbin 2019, as numbers.

    Attributes:
        text: What is claimed.
        source: Where.
        density: At which density; None: of the dense network.
        of: The variant, whose row is the first that `measure` takes.
        against: The variant of the second; `"dense"`: the dense network.
        measure: From two rows of one replicate to the number.
        low: The smallest number that agrees.
        high: The largest.
        direction: The smallest that agrees at other settings; None: at other
            settings nothing is claimed.
        form: How the number is printed.
    """

    text: str
    source: str
    density: float | None
    of: str
    against: str
    measure: Callable[[Row, Row], float]
    low: float
    high: float = math.inf
    direction: float | None = 0.0
    form: str = "{:.2f}"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a run says of a claim.

    Attributes:
        claim: The claim.
        outcome: `"reproduced"`, `"not reproduced"` or `"not enough runs"`.
        measured: The number, over replicates.
        low: The smallest number that agrees with the claim here.
        high: The largest.
    """

    claim: Claim
    outcome: str
    measured: Estimate
    low: float
    high: float

    def __str__(self) -> str:
        form = self.claim.form.format
        number = form(self.measured.mean)
        if self.measured.replicates > 1:
            number += f" ({form(self.measured.low)} to "
            number += f"{form(self.measured.high)})"
        if self.high == math.inf:
            band = f"at least {form(self.low)}"
        else:
            band = f"{form(self.low)} to {form(self.high)}"
        return (
            f"{self.outcome}: {self.claim.text}: {number}, n = "
            f"{self.measured.replicates}; claimed {band} ({self.claim.source})"
        )


_STOP = "early_stop_step"
_ACCURACY = "test_accuracy_at_early_stop"


def _earlier(one: Row, other: Row) -> float:
    return 1 - one[_STOP] / other[_STOP]


def _slower(one: Row, other: Row) -> float:
    return one[_STOP] / other[_STOP]


def _points(one: Row, other: Row) -> float:
    return 100 * (one[_ACCURACY] - other[_ACCURACY])


def _level(column: str) -> Callable[[Row, Row], float]:
    return lambda one, _: one[column]


CLAIMS: dict[tuple[str, str], tuple[Claim, ...]] = {
    ("lenet_300_100", "mnist"): (
        Claim(
            "the dense network's early-stop step",
            "Fig. 3",
            None,
            "ticket",
            "dense",
            _level(_STOP),
            4_000,
            6_000,
            None,
            "{:,.0f}",
        ),
        Claim(
            "the dense network's test accuracy in percent",
            "Fig. 1",
            None,
            "ticket",
            "dense",
            lambda one, _: 100 * one[_ACCURACY],
            97.8,
            98.1,
            None,
        ),
        Claim(
            "share of steps by which tickets at 21 % stop earlier than dense",
            "Sec. 2, Fig. 4a",
            0.211,
            "ticket",
            "dense",
            _earlier,
            0.25,
        ),
        Claim(
            "points by which tickets at 13.5 % are more accurate than dense",
            "Sec. 2, Fig. 4b",
            0.135,
            "ticket",
            "dense",
            _points,
            0.25,
        ),
        Claim(
            "points between tickets at 3.6 % and dense",
            "Sec. 2, Fig. 4a",
            0.036,
            "ticket",
            "dense",
            _points,
            -0.2,
            0.2,
            None,
        ),
        Claim(
            "times as long until reinitialised tickets at 21 % stop",
            "Sec. 2, Fig. 4a",
            0.211,
            "reinit",
            "ticket",
            _slower,
            2.0,
            direction=1.0,
        ),
        Claim(
            "points by which tickets at 21 % beat reinitialised ones",
            "Sec. 2, Fig. 4b",
            0.211,
            "ticket",
            "reinit",
            _points,
            0.3,
        ),
        Claim(
            "points by which reinitialised tickets at 21 % beat shuffled ones",
            "App. E, Fig. 14",
            0.211,
            "reinit",
            "shuffle",
            _points,
            0.0,
        ),
    ),
}
"""By model and data set. Numbers: the paper's text; where it prints none, its
figures, read with the uncertainty that the bands allow for."""


def check(
    networks: Sequence[Replicated],
    model: str,
    dataset: str,
    published: bool,
) -> list[Finding]:
    """Returns what a run says of each claim that it has networks for.

    A claim is reproduced if the interval over replicates (Student's t, 95 %)
    lies within the claimed numbers, not reproduced if it lies outside, and
    else there are not enough runs.

    Args:
        networks: Records of all replicates.
        model: The model's name.
        dataset: The data set's name.
        published: Whether the settings are those of the paper.
    """
    findings = []
    for claim in CLAIMS.get((model, dataset), ()):
        low, high = claim.low, claim.high
        if not published:
            if claim.direction is None:
                continue
            low, high = claim.direction, math.inf
        values = _measured(networks, claim)
        if values:
            measured = estimate(values)
            outcome = _outcome(measured, low, high)
            findings.append(Finding(claim, outcome, measured, low, high))
    return findings


def _outcome(measured: Estimate, low: float, high: float) -> str:
    if low <= measured.low and measured.high <= high:
        return "reproduced"
    if measured.high < low or measured.low > high:
        return "not reproduced"
    return "not enough runs"


def _measured(networks: Sequence[Replicated], claim: Claim) -> list[float]:
    """Returns the number of each replicate that has both networks."""
    level = _level_at(networks, claim.density)
    if level is None:
        return []
    rows = {(n.replicate, n.level, n.variant): n.row for n in networks}
    values = []
    for replicate in sorted({n.replicate for n in networks}):
        one = rows.get((replicate, level, claim.of))
        other = rows.get(
            (replicate, 0, "ticket")
            if claim.against == "dense"
            else (replicate, level, claim.against)
        )
        if (
            one
            and other
            and all(_STOP in r and _ACCURACY in r for r in (one, other))
        ):
            values.append(claim.measure(one, other))
    return values


def _level_at(
    networks: Sequence[Replicated], density: float | None
) -> int | None:
    """Returns the level nearest to a density, if one is within a tenth."""
    if density is None:
        return 0
    levels = {n.level: float(n.row["density"]) for n in networks if n.level}
    if not levels:
        return None
    level = min(levels, key=lambda n: abs(math.log(levels[n] / density)))
    return level if abs(levels[level] / density - 1) < 0.1 else None
