"""Effects and their bounds as text."""

import math
from collections.abc import Sequence

from tf_lottery.analysis.comparison import Comparison
from tf_lottery.analysis.deciding import Deciding
from tf_lottery.analysis.estimate import Estimate

_Z = 1.96  # of a 95 % interval over examples


def steps_share(speed: Estimate, is_shown_slower: bool = False) -> str:
    """Returns the share of the dense network's steps until a catch-up.

    Args:
        speed: `Comparison.speed` against the dense network.
        is_shown_slower: Whether the text has the lower bound of the share in
            place of the upper bound.

    Example:
        >>> steps_share(Estimate(math.log(2), 0.0, 3))
        'in 50 % of its steps (at most 50 %)'
    """
    text = f"in {_percent(-speed.mean)} of its steps"
    if not speed.has_interval:
        return text
    if is_shown_slower:
        return f"{text} (at least {_percent(-speed.high)})"
    return f"{text} (at most {_percent(-speed.low)})"


def _percent(logarithm: float) -> str:
    return f"{100 * math.exp(min(logarithm, 12)):,.0f} %"


def stops(sooner: Estimate) -> str:
    """Returns how much earlier than the dense network a ticket stops.

    Args:
        sooner: `Comparison.sooner` against the dense network.

    Example:
        >>> stops(Estimate(math.log(2), 0.0, 3))
        'stops 50 % earlier (at least 50 %)'
        >>> stops(Estimate(-math.log(2), 0.0, 1))
        'stops 100 % later'
    """
    text = f"stops {_earlier(sooner.mean)}"
    if not sooner.has_interval:
        return text
    nearest = sooner.low if sooner.mean >= 0 else sooner.high
    if sooner.mean * nearest > 0 and _percent_off(nearest):
        return f"{text} (at least {_percent_off(nearest)} %)"
    span = f"{_earlier(sooner.low)} to {_earlier(sooner.high)}"
    return f"{text} (not shown: 95 % interval {span})"


def _earlier(logarithm: float) -> str:
    how = "earlier" if logarithm >= 0 else "later"
    return f"{_percent_off(logarithm)} % {how}"


def _percent_off(logarithm: float) -> int:
    return round(100 * abs(1 - math.exp(-logarithm)))


def gain(comparison: Comparison, metric: Deciding) -> str:
    """Returns the improvement of the deciding metric, with a bound.

    Args:
        comparison: Comparison with the gain. With fewer than three replicates
            the interval is over validation examples only, not over trainings.
        metric: Deciding metric of the run.
    """
    estimated = comparison.gain
    text = metric.difference(estimated.mean)
    if not metric.is_fraction:
        text += f" of {metric.title}"
    if estimated.has_interval:
        return f"{text} on validation data ({metric.bound(estimated.low)})"
    if math.isnan(comparison.examples):
        return f"{text} on validation data"
    half = _Z * comparison.examples
    ends = (estimated.mean - half, estimated.mean + half)[:: metric.sign]
    low, high = map(metric.difference, ends)
    return (
        f"{text} on validation data (95 % interval over its examples {low} to "
        f"{high})"
    )


def against(comparison: Comparison, control: str, metric: Deciding) -> str:
    """Returns how a control compares with the ticket.

    Args:
        comparison: Ticket against control.
        control: Name of the control.
        metric: Deciding metric of the run.
    """
    slower, lost = comparison.sooner, comparison.gain
    times = f"{math.exp(slower.mean):.1f} times the steps"
    points = metric.difference(-lost.mean)
    if not slower.has_interval:
        return f"{control} stops after {times}, with {points}"
    is_later, is_worse = slower.is_above(0), lost.is_above(0)
    if is_later:
        times += f" (at least {math.exp(slower.low):.2f})"
    side = "at most" if metric.sign > 0 else "at least"
    points += f" ({side} {metric.difference(-lost.low)})" if is_worse else ""
    text = f"{control} stops after {times}, with {points}"
    # A copy in another data order is not expected to be worse.
    if not (is_later or is_worse) and control != "data_order":
        text += ", and is not shown to be worse than the ticket"
    return text


def levels(numbers: Sequence[int]) -> str:
    """Returns levels as text.

    Args:
        numbers: Levels in rising order.

    Example:
        >>> levels([1, 3, 4, 6, 7, 8])
        'levels 1, 3, 4, 6 to 8'
        >>> levels([2])
        'level 2'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [
        f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run))
        for run in runs
    ]
    return f"level{'s'[: len(numbers) > 1]} {', '.join(parts)}"
