"""How much tickets lose of any metric that Keras computes."""

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
    """Returns how much each level loses of a metric, with upper bounds.

    Bounds are normal, with the bootstrap's standard error over examples.

    Args:
        tickets: The tickets of a search by level, trained; the first one is
            the dense network.
        recipe: Loss and metrics of their training.
        split: The examples.
        metric: As `training.resampling.ResampledMetric` takes it.
        max_drop: The drop that is tested, in the metric's unit.
        confidence: Of the bounds, in [0.5, 1).

    Raises:
        ValueError: The metric is unknown, has no direction or is nan, or a
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
                f"for level {ticket.level}: nothing can be decided by it."
            )
    errors = resampled.errors(first, others)
    z = float(stats.norm.ppf(confidence))
    found = []
    for ticket, value, error in zip(sparse, values[1:], errors, strict=True):
        drop = -resampled.sign * (value - values[0])
        found.append(
            smallest.Drop(
                ticket.level,
                ticket.density,
                drop,
                drop + z * error,
                error,
                len(split),
            )
        )
    return found, decided
