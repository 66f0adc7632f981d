"""The verdict on a run, in sentences."""

from collections.abc import Sequence

from tf_lottery.analysis import power, wording
from tf_lottery.analysis.comparison import Comparison, compare
from tf_lottery.analysis.estimate import FEWEST
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.verdict import (
    LOSING,
    NOT_TESTED,
    SHORT,
    UNDECIDED,
    WINNING,
    Judgment,
    Verdict,
    sequence,
)
from tf_lottery.core import variants

_ADVICE = 5  # replicates that a verdict usually takes
_LOWEST = "the dense network's lowest validation loss"


def sentences(judgment: Judgment, networks: Sequence[Network]) -> list[str]:
    """Returns the results of a run as sentences, the verdict first.

    Args:
        judgment: Verdicts on the run, as `verdict.judge` returns.
        networks: Records of all replicates, for comparisons with controls.
    """
    if judgment.problem:
        lines = _without_verdict(judgment, networks)
    elif judgment.winner is not None:
        lines = [_named(judgment, judgment.winner, networks)]
        lines += _other_levels(judgment)
    else:
        lines = _none_named(judgment)
    lines += judgment.notes
    if judgment.comparisons:
        lines.append(f"Decided by {judgment.metric}.")
    return lines


def refusal(judgment: Judgment) -> str:
    """Returns the reason why no ticket is named, in one line.

    Args:
        judgment: Verdicts on a run without a winner.
    """
    if judgment.problem:
        return f"No ticket is shown to win: {judgment.problem}."
    return " ".join(_none_named(judgment))


def _level(comparison: Comparison) -> str:
    percent = f"{100 * comparison.density:.1f} %"
    return f"Level {comparison.level} ({percent} of the weights)"


def _named(
    judgment: Judgment, winner: Verdict, networks: Sequence[Network]
) -> str:
    comparison = winner.comparison
    return (
        f"{_level(comparison)} is a winning ticket over {judgment.replicates} "
        f"replicates: {_effects(comparison, judgment)}"
        f"{_controls(comparison, judgment, networks)}."
    )


def _effects(comparison: Comparison, judgment: Judgment) -> str:
    reaches = f"reaches {_LOWEST} {wording.steps_share(comparison.speed)}"
    count = len(comparison.replicates)
    if comparison.never == count:
        reaches = f"never reaches {_LOWEST}"
    elif comparison.never:
        reaches += f" (never in {comparison.never} of {count} replicates)"
    return (
        f"it {reaches}, {wording.stops(comparison.sooner)}, "
        f"and is {wording.gain(comparison, judgment.metric)}"
    )


def _controls(
    comparison: Comparison, judgment: Judgment, networks: Sequence[Network]
) -> str:
    """Returns how the controls of a level compare with its tickets."""
    names = sorted(
        {
            variants.control_of(n.variant)
            for n in networks
            if n.level == comparison.level and n.variant != "ticket"
        }
    )
    parts = []
    for name in names:
        pairs = compare(networks, "ticket", name)
        parts += [
            wording.against(pair, name, judgment.metric)
            for pair in pairs
            if pair.level == comparison.level
        ]
    return "".join(f"; {part}" for part in parts)


def _other_levels(judgment: Judgment) -> list[str]:
    """Returns the outcomes of the other levels, if there are any."""
    parts = []
    for outcome in (WINNING, LOSING, UNDECIDED, NOT_TESTED):
        numbers = [
            v.level
            for v in judgment.verdicts
            if v.outcome == outcome and v is not judgment.winner
        ]
        if numbers:
            also = "also " if outcome == WINNING else ""
            parts.append(f"{also}{outcome}: {wording.levels(numbers)}")
    text = "; ".join(parts)
    return [f"{text[:1].upper()}{text[1:]}."] if parts else []


def _none_named(judgment: Judgment) -> list[str]:
    first = sequence(judgment.verdicts)[0]
    over = f"over {judgment.replicates} replicates"
    if first.outcome == SHORT:
        return [f"Trained too short for a verdict {over}: {first.reason}."]
    subject = "" if first.outcome == NOT_TESTED else "it "
    lines = [
        f"No level is shown to be a winning ticket {over}. "
        f"{_level(first.comparison)}, tested first, is {first.outcome}: "
        f"{subject}{first.reason}."
    ]
    if first.outcome == UNDECIDED:
        lines.append(_more(judgment, first.comparison))
    return lines


def _more(judgment: Judgment, comparison: Comparison) -> str:
    """Returns how many replicates another run needs."""
    effects = power.Effects.measured(comparison, judgment.metric.margin)
    needed = power.replicates(effects)
    if needed is None:
        return (
            "As measured it is no winning ticket, so more replicates would "
            "not name it."
        )
    return (
        f"If the effects are as measured, {needed} replicates name it with "
        f"{100 * power.POWER:.0f} % probability. Looking again at a run that "
        "grew would name a ticket by chance too often: begin another one, with "
        "another seed."
    )


def _without_verdict(
    judgment: Judgment, networks: Sequence[Network]
) -> list[str]:
    count = judgment.replicates
    named = f"{count} replicate{'s'[: count != 1]}"
    lines = [f"No verdict on {named}: {judgment.problem}."]
    if judgment.comparisons and judgment.looks.last < FEWEST:
        comparison = sequence(judgment.comparisons)[0]
        lines.append(
            f"{_level(comparison)} as measured: "
            f"{_effects(comparison, judgment)}"
            f"{_controls(comparison, judgment, networks)}."
        )
        lines.append(
            f"For a verdict, train {_ADVICE} replicates: --replicates "
            f"{_ADVICE}, or TicketSearch(..., replicates={_ADVICE})."
        )
    return lines
