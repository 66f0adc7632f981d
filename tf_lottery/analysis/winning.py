"""This module knows which tickets are winning."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from scipy import stats

from tf_lottery.analysis import deciding as deciding_
from tf_lottery.analysis.deciding import MARGIN, Deciding


class Trained(Protocol):
    """What the verdict needs to know of a trained network."""

    @property
    def level(self) -> int:
        """Its level."""

    @property
    def variant(self) -> str:
        """`"ticket"`, or the control's name."""

    @property
    def row(self) -> Mapping[str, Any]:
        """Its row of results.csv."""

    @property
    def per_example(self) -> Mapping[str, np.ndarray]:
        """By split, the deciding metric of each example at early stop."""


_ACCURACY = Deciding("accuracy", 1, MARGIN)


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much one network is better than another on the same examples.

    Attributes:
        mean: The deciding metric of the one minus that of the other; of a
            loss, the other way round: above 0, the one is better.
        low: Lower end of its interval.
        high: Upper end.
        levels: How many such intervals hold together with 95 % confidence.
        metric: The deciding metric.
    """

    mean: float
    low: float
    high: float
    levels: int = 1
    metric: Deciding = dataclasses.field(default=_ACCURACY, repr=False)

    def __str__(self) -> str:
        together = f" of all {self.levels} levels" if self.levels > 1 else ""
        ends = self.mean, self.low, self.high
        if not self.metric.is_fraction:  # told as the loss itself moves
            mean, high, low = (self.metric.difference(-end) for end in ends)
            return (
                f"{self.metric.name} {mean} (95 % interval{together} {low} to "
                f"{high})"
            )
        mean, low, high = map(self.metric.difference, ends)
        return f"{mean} points (95 % interval{together} {low} to {high})"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether one ticket wins, and why.

    Attributes:
        level: Its level.
        density: Its density.
        outcome: `"winning"`; `"not winning"`; or `"undecided"`: one replicate
            and this much validation data cannot tell.
        reason: Why it is not winning; empty if it is.
        validation: Its gain over the dense network at early stop, on the
            validation data, which decides.
        test: The same on the test data, which decides nothing; None without.
        sooner: Fraction of the dense network's steps that it needs less until
            early stop; negative if it needs more.
    """

    level: int
    density: float
    outcome: str
    reason: str
    validation: Difference
    test: Difference | None
    sooner: float

    @property
    def is_winning(self) -> bool:
        """Whether it is shown to win."""
        return self.outcome == "winning"


def difference(
    one: np.ndarray,
    other: np.ndarray,
    levels: int = 1,
    metric: Deciding = _ACCURACY,
) -> Difference:
    """Returns by how much one network is better, paired by example.

    The interval is the normal one over examples. It speaks of these two
    trained networks on new examples, not of new trainings: those take
    replicates.

    Args:
        one: The metric of the one for each example, bool or float
            `[examples]`: whether it classified it right, or its loss.
        other: The same of the other, on the same examples.
        levels: Among how many such questions the 5 % are shared (Bonferroni).
        metric: The metric.

    Example:
        >>> one = np.array([True, True, True, False])
        >>> difference(one, one)
        Difference(mean=0.0, low=0.0, high=0.0, levels=1)
    """
    d = metric.sign * (one.astype(np.float64) - other.astype(np.float64))
    z = float(stats.norm.ppf(1 - 0.05 / (2 * levels)))
    half = float(z * d.std() / math.sqrt(len(d)))
    mean = float(d.mean())
    return Difference(mean, mean - half, mean + half, levels, metric)


def judge(networks: Sequence[Trained]) -> list[Verdict]:
    """Returns the verdict on every level but the dense one, of one replicate.

    A ticket wins if it stops no later than the dense network and is no less
    accurate at early stop, with fewer weights (Frankle & Carbin 2019, Sec.
    1); without an accuracy, if its loss is no higher. "No less accurate" is
    tested, not read off: the 95 % interval of its gain must lie above the
    negative margin of `analysis.deciding`, widened so that those of all
    levels hold together: who looks at many levels finds a winner by chance.
    Differs from the paper, which compares test
    accuracies: the gain that decides is that on the validation data, so that
    the test data chooses no ticket and its figures stay honest.

    Args:
        networks: Records of one replicate, the dense network among them.

    Returns:
        Verdicts by level.

    Raises:
        ValueError: There is no dense network, or no validation data to judge
            by.
    """
    tickets = sorted(
        (n for n in networks if n.variant == "ticket"), key=lambda n: n.level
    )
    if not tickets or tickets[0].level != 0:
        raise ValueError("There is no dense network (level 0) to compare with.")
    dense, *sparse = tickets
    metric = deciding_.deciding(dense.row)
    if any(
        need not in dense.row
        for need in ("early_stop_step", metric.column("validation"))
    ):
        raise ValueError(
            "A verdict needs validation data: fit(..., validation_split=0.1) "
            "or fit(..., validation_data=(x, y))."
        )
    return [_judge(ticket, dense, len(sparse)) for ticket in sparse]


def winner(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Returns the verdict on the smallest ticket that wins, if one does."""
    return max(
        (v for v in verdicts if v.is_winning),
        key=lambda v: v.level,
        default=None,
    )


def _judge(ticket: Trained, dense: Trained, levels: int) -> Verdict:
    metric = deciding_.deciding(dense.row)
    gains = {
        split: difference(values, dense.per_example[split], levels, metric)
        for split, values in ticket.per_example.items()
    }
    gain = gains["validation"]
    stop, dense_stop = (t.row["early_stop_step"] for t in (ticket, dense))
    outcome, reason = "winning", ""
    worse = "less accurate" if metric.is_fraction else "worse"
    if stop > dense_stop:
        outcome = "not winning"
        reason = f"stops at step {stop:,}, the dense network at {dense_stop:,}"
    elif gain.high < 0:
        outcome = "not winning"
        reason = f"is {worse}: {gain} on the validation data"
    elif gain.low <= -metric.margin:
        outcome = "undecided"
        reason = f"may be {worse}: {gain} on the validation data"
    return Verdict(
        ticket.level,
        ticket.row["density"],
        outcome,
        reason,
        gain,
        gains.get("test"),
        1 - stop / dense_stop,
    )


def sentence(networks: Sequence[Trained]) -> str:
    """Returns in one plain sentence which ticket of one replicate wins.

    It names the smallest that does, by how much on the test data, and how its
    controls compare; or says that none wins, and what came nearest to it.

    Args:
        networks: Records of one replicate.
    """
    verdicts = judge(networks)
    if not verdicts:
        return "No ticket was sought: there is only the dense network."
    best = winner(verdicts)
    undecided = [v for v in verdicts if v.outcome == "undecided"]
    if best is not None:
        start = f"Level {best.level} is a winning ticket"
    elif undecided:
        best = max(undecided, key=lambda v: v.validation.low)
        start = (
            "No level is shown to be a winning ticket, and one replicate "
            f"cannot rule it out. Nearest is level {best.level}, which "
            f"{best.reason}"
        )
    else:
        why = "; ".join(f"level {v.level} {v.reason}" for v in verdicts)
        return f"No level is a winning ticket: {why}."
    return "; ".join([start, *_comparison(networks, best)]) + "."


def _comparison(networks: Sequence[Trained], best: Verdict) -> list[str]:
    """Says how a ticket compares with the dense network and its controls."""
    ticket, dense = (
        _find(networks, level, "ticket") for level in (best.level, 0)
    )
    metric = deciding_.deciding(dense.row)
    parts = [
        f"with {100 * best.density:.1f} % of the weights it stops at step "
        f"{ticket.row['early_stop_step']:,}, the dense network at "
        f"{dense.row['early_stop_step']:,}",
        _gain(ticket, dense, metric),
    ]
    parts += [
        _against(n, ticket, metric)
        for n in networks
        if n.level == best.level and n.variant != "ticket"
    ]
    if dense.row["early_stop_step"] == dense.row["steps"]:
        parts.append(
            "the dense network's validation loss still fell when training "
            "ended, so how much sooner a ticket stops is not known"
        )
    return parts


def _find(networks: Sequence[Trained], level: int, variant: str) -> Trained:
    return next(
        n for n in networks if n.level == level and n.variant == variant
    )


def _split(network: Trained) -> str:
    return "test" if "test" in network.per_example else "validation"


def _gain(ticket: Trained, dense: Trained, metric: Deciding) -> str:
    split = _split(ticket)
    gain = difference(
        ticket.per_example[split], dense.per_example[split], metric=metric
    )
    value = metric.value(ticket.row[metric.column(split)])
    return (
        f"its {split} {metric.name} is {value}, {gain} against the dense "
        "network's"
    )


def _against(control: Trained, ticket: Trained, metric: Deciding) -> str:
    """Says how the winner's control compares with it."""
    split = _split(ticket)
    gap = difference(
        control.per_example[split], ticket.per_example[split], metric=metric
    )
    stop = control.row["early_stop_step"]
    text = (
        f"its control {control.variant} stops at {stop:,} with {gap} against "
        "the ticket's"
    )
    # A copy in another data order lacks nothing, and is to do as well.
    lacks = control.variant.partition(".")[0] != "data_order"
    if lacks and gap.high >= 0 and stop <= ticket.row["early_stop_step"]:
        text += ", no worse: what was taken from it is not what makes it win"
    return text
