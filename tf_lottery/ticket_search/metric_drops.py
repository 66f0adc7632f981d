"""Loss of tickets against the dense network, in any Keras metric."""

import math
from collections.abc import Sequence
from typing import Any

from scipy import stats

from tf_lottery.analysis import smallest
from tf_lottery.analysis.deciding import Deciding
from tf_lottery.core.errors import UserError
from tf_lottery.data import Split
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.training import Recipe
from tf_lottery.training.resampling import ResampledMetric


def drops(
    tickets: Sequence[Ticket],
    recipe: Recipe,
    split: Split,
    metric: Any,
    max_drop: float,
    confidence: float,
) -> tuple[list[smallest.Drop], Deciding]:
    """Returns how much worse each level is than the dense network.

    Upper bounds are normal, with the bootstrap's standard error over examples.

    Args:
        tickets: The trained tickets of a search by level; the first one is
            the dense network.
        recipe: Loss and metrics of their training.
        split: The validation examples.
        metric: A name of a metric in `recipe`, `"loss"`, or an argument of
            `keras.metrics.get`.
        max_drop: The drop that is tested, > 0, in the metric's unit.
        confidence: Confidence of the upper bounds, in [0.5, 1).

    Returns:
        The drop of each level from 1 on, and the metric that decides.

    Raises:
        UserError: The metric is unknown, has no direction or is nan, or a
            number is out of range.
    """
    dense, *sparse = tickets
    models = (ticket.model() for ticket in sparse)
    model = dense.model()
    resampled = ResampledMetric(model, recipe, split, metric)
    decided = Deciding(resampled.name, resampled.sign, 0.0, is_fraction=False)
    smallest.require(max_drop, confidence, decided)
    first = resampled.outputs(model)
    others = [resampled.outputs(each) for each in models]
    values = [resampled.value(each) for each in (first, *others)]
    for ticket, value in zip(tickets, values, strict=True):
        if not math.isfinite(value):
            raise UserError(
                f"Metric {resampled.name!r} is {value} on the validation data "
                f"for level {ticket.level}, so it cannot decide."
            )
    errors = resampled.errors(first, others)
    z = float(stats.norm.ppf(confidence))
    by_level = []
    for ticket, value, error in zip(sparse, values[1:], errors, strict=True):
        drop = -resampled.sign * (value - values[0])
        by_level.append(
            smallest.Drop(
                ticket.level,
                ticket.density,
                drop,
                drop + z * error,
                error,
                len(split),
            )
        )
    return by_level, decided
