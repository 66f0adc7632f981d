"""Verdicts on tickets, with their error rate.

A ticket wins at a level if new trainings of it are shown to

(a) reach the dense network's lowest validation loss in fewer steps than the
    dense network takes: the mean over replicates of log(dense early-stop step
    / ticket's catch-up step) is above 0; and
(b) be no worse at early stop: the mean gain of the deciding metric is above
    the negative margin of `deciding`,

each by a one-sided t test at 2.5 % (Frankle & Carbin 2019, Sec. 1: "at most as
many steps", "the same accuracy"). Both must hold, so a level that fails one of
them is named in at most 2.5 % of runs.

The sequence of tests does not depend on the data: first the level nearest to
`ANCHOR`, then the sparser ones, then the denser ones. The first failure ends
the sequence, so the error rate holds for all levels together without another
correction (fixed-sequence test, Maurer et al. 1995).

Differs from the paper, which compares early-stop steps: the validation loss is
flat and noisy around its minimum, and the same training stops at 6,600 or 5,200
on other validation examples. The step at which the loss falls to a fixed value
varies far less. Early-stop steps are reported too, and tested as a claim of the
paper (`claims`).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

from tf_lottery.analysis import wording
from tf_lottery.analysis.comparison import STOP, Comparison, compare
from tf_lottery.analysis.deciding import Deciding, deciding
from tf_lottery.analysis.estimate import FEWEST
from tf_lottery.analysis.looks import Looks
from tf_lottery.analysis.records import Missing, Network

ANCHOR = 0.211
"""Density at which the sequence of levels begins, that of the paper's fastest
LeNet tickets (Frankle & Carbin 2019, Sec. 2)."""

TOO_SHORT = 0.95
"""A dense network whose early stop is after this share of its steps was still
learning, so its true early stop is not known. There is no verdict if that holds
for more than half of the replicates."""

WINNING, LOSING, UNDECIDED = "winning", "not winning", "undecided"
NOT_TESTED, SHORT = "not tested", "trained too short"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict on the tickets of one level.

    Attributes:
        comparison: Tickets against dense networks.
        outcome: `"winning"`; `"not winning"`: shown to be slower, or worse by
            more than the margin, with 95 % confidence for all levels
            together; `"undecided"`; `"not tested"`: an earlier level in the
            sequence failed, or replicates are missing; `"trained too short"`.
        reason: Reason why the level does not win; empty if it wins.
    """

    comparison: Comparison
    outcome: str
    reason: str = ""

    @property
    def level(self) -> int:
        """Level of the tickets."""
        return self.comparison.level

    @property
    def density(self) -> float:
        """Density of the tickets, in (0, 1]."""
        return self.comparison.density

    @property
    def is_winning(self) -> bool:
        """Whether the tickets are shown to win."""
        return self.outcome == WINNING


_Level = TypeVar("_Level", Verdict, Comparison)


@dataclasses.dataclass(frozen=True)
class Judgment:
    """The verdicts on a run.

    Attributes:
        metric: Deciding metric of the run.
        comparisons: Tickets against dense networks, in the order of levels.
        verdicts: Verdicts in the order of levels; empty if there are none.
        replicates: Number of compared replicates.
        looks: Numbers of replicates at which the run is judged.
        problem: Reason why there is no verdict; empty if there is one.
        notes: Sentences about missing networks and late early stops.
    """

    metric: Deciding
    comparisons: tuple[Comparison, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    replicates: int = 0
    looks: Looks = Looks()  # noqa: RUF009 - it is frozen
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def winner(self) -> Verdict | None:
        """The verdict on the smallest winning ticket; None if none wins."""
        winning = [v for v in self.verdicts if v.is_winning]
        return max(winning, key=lambda v: v.level, default=None)

    @property
    def is_settled(self) -> bool:
        """Whether the level tested first is decided."""
        first = sequence(self.verdicts)[:1]
        return any(v.outcome in (WINNING, LOSING, SHORT) for v in first)


def judge(
    networks: Sequence[Network],
    looks: Looks | int | str | None = None,
    missing: Sequence[Missing] = (),
    levels: int | None = None,
) -> Judgment:
    """Returns the verdicts on a run. Test data decide nothing.

    Args:
        networks: Records of all replicates.
        looks: Planned numbers of replicates at which the run is judged; `None`
            judges all replicates.
        missing: Networks whose loss became nan or infinite.
        levels: Number of planned levels: a run with fewer has no verdict.
            `None` accepts any number of levels.
    """
    # Probes search the rewind step; they are not compared.
    missing = [n for n in missing if not n.variant.startswith("probe_")]
    dense = [n for n in networks if not n.level and n.variant == "ticket"]
    metric = deciding([n.row for n in dense])
    begun = {n.replicate for n in dense} | {n.replicate for n in missing}
    looks = Looks.parse(looks or max(len(begun), 1))
    due = sorted(begun)[: looks.at(len(begun))]
    networks = [n for n in networks if n.replicate in due]
    dense = [n for n in dense if n.replicate in due]
    has_validation = all(STOP in n.row for n in dense)
    judgment = Judgment(
        metric,
        comparisons=tuple(compare(networks, "ticket", "dense")),
        replicates=len(dense),
        looks=looks,
        notes=_notes(dense, missing) if has_validation else (),
    )
    planned = None if missing else levels
    problem = _problem(networks, metric, looks, len(begun), planned)
    if not problem and not judgment.comparisons:
        problem = "the learning curves hold no validation losses"
    if problem:
        return dataclasses.replace(judgment, problem=problem)
    comparisons = judgment.comparisons
    if short := _too_short(dense):
        verdicts = [Verdict(c, SHORT, short) for c in comparisons]
    else:
        verdicts = _in_sequence(comparisons, dense, metric, looks.alpha)
    verdicts.sort(key=lambda v: v.level)
    return dataclasses.replace(judgment, verdicts=tuple(verdicts))


def sequence(levels: Sequence[_Level]) -> Sequence[_Level]:
    """Returns levels in the order of their tests.

    Args:
        levels: One verdict or comparison per level.
    """
    if not levels:
        return []
    ordered: list[_Level] = sorted(levels, key=lambda c: c.level)
    distances = [abs(math.log(c.density / ANCHOR)) for c in ordered]
    start = distances.index(min(distances))
    return ordered[start:] + ordered[:start][::-1]


def _in_sequence(
    comparisons: Sequence[Comparison],
    dense: Sequence[Network],
    metric: Deciding,
    alpha: float,
) -> list[Verdict]:
    verdicts: list[Verdict] = []
    failed: Comparison | None = None
    for comparison in sequence(comparisons):
        verdict = _incomplete(comparison, dense) or _tested(
            comparison, metric, alpha, len(comparisons)
        )
        if failed is not None and verdict.outcome != LOSING:
            reason = f"level {failed.level}, tested before it, does not win"
            verdict = Verdict(comparison, NOT_TESTED, reason)
        if not verdict.is_winning:
            failed = failed or comparison
        verdicts.append(verdict)
    return verdicts


def _incomplete(
    comparison: Comparison, dense: Sequence[Network]
) -> Verdict | None:
    lacking = {n.replicate for n in dense} - {*comparison.replicates}
    if not lacking:
        return None
    names = ", ".join(map(str, sorted(lacking)))
    plural = "s"[: len(lacking) > 1]
    reason = f"replicate{plural} {names} lack{'' if plural else 's'} it"
    return Verdict(comparison, NOT_TESTED, reason)


def _tested(
    comparison: Comparison, metric: Deciding, alpha: float, levels: int
) -> Verdict:
    speed, gain = comparison.speed, comparison.gain
    # Bonferroni over levels: with two tests, a winning level is called not
    # winning in at most 5 % of runs.
    is_slower = speed.is_below(0, alpha / levels)
    is_worse = gain.is_below(-metric.margin, alpha / levels)
    reasons = []
    if is_slower:
        share = wording.steps_share(speed, is_shown_slower=True)
        reasons.append(
            f"reaches the dense network's lowest validation loss {share}"
        )
    elif not speed.is_above(0, alpha):
        reasons.append(
            "is not shown to reach the dense network's lowest validation loss "
            f"sooner ({wording.steps_share(speed)})"
        )
    if is_worse:
        reasons.append(f"is worse: {wording.gain(comparison, metric)}")
    elif not gain.is_above(-metric.margin, alpha):
        reasons.append(
            f"is not shown to be as good: {wording.gain(comparison, metric)}"
        )
    if not reasons:
        return Verdict(comparison, WINNING)
    outcome = LOSING if is_slower or is_worse else UNDECIDED
    return Verdict(comparison, outcome, "; ".join(reasons))


def _problem(
    networks: Sequence[Network],
    metric: Deciding,
    looks: Looks,
    begun: int,
    levels: int | None,
) -> str:
    """Returns the reason why there is no verdict; empty if there is one."""
    dense = [n for n in networks if not n.level and n.variant == "ticket"]
    if not dense:
        return "no dense network (level 0) is trained"
    needed = STOP, metric.column("validation")
    if any(name not in n.row for name in needed for n in dense):
        return (
            "a verdict needs validation data: fit(..., validation_split=0.1) "
            "or fit(..., validation_data=(x, y))"
        )
    deepest = max(n.level for n in networks if n.variant == "ticket")
    if not deepest:
        return "only the dense network is trained"
    due = looks.at(begun)
    if begun < due:
        return f"{begun} of {due} replicates are begun"
    if levels is not None and deepest < levels:
        return f"training is at level {deepest} of {levels}"
    if len(dense) < FEWEST:
        return (
            f"a verdict takes {FEWEST} replicates or more, for trainings "
            "differ by chance"
        )
    return ""


def _late(dense: Sequence[Network]) -> list[Network]:
    """Returns the dense networks that were still learning at the end."""
    return [
        n
        for n in dense
        if n.row[STOP] > TOO_SHORT * n.row.get("steps", math.inf)
    ]


def _too_short(dense: Sequence[Network]) -> str:
    """Returns a reason if most dense networks were still learning.

    One of several may stop late by chance, because its loss is flat there. No
    ticket is wrongly named then, because the early-stop step is underestimated.
    """
    late = _late(dense)
    if 2 * len(late) <= len(dense):
        return ""
    steps = max(int(n.row["steps"]) for n in late)
    return (
        "the dense network's validation loss was lowest in the last 5 % of its "
        f"{steps:,} steps ({len(late)} of {len(dense)} replicates): train "
        "longer"
    )


def _notes(
    dense: Sequence[Network], missing: Sequence[Missing]
) -> tuple[str, ...]:
    notes = [
        f"Replicate {network.replicate} lacks {network.variant} of level "
        f"{network.level}: its loss was not finite at step {network.step:,}."
        for network in missing
    ]
    late = _late(dense)
    if 0 < 2 * len(late) <= len(dense):
        notes.append(
            f"{len(late)} of {len(dense)} dense networks stopped in the last 5 "
            "% of their steps: tickets may be faster than measured."
        )
    return tuple(notes)
