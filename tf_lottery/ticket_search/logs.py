"""Logs of evaluations and levels, under the names that Keras uses."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tf_lottery.lottery.ticket import Ticket

_AT_EARLY_STOP = re.compile("^validation_(.*)_at_early_stop$")


def evaluation_logs(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metrics of an evaluation, `val_` for `validation_`.

    Args:
        metrics: Name to value, and `"step"`, which is left out.
    """
    return {
        re.sub("^validation_", "val_", name): value
        for name, value in metrics.items()
        if name != "step"
    }


def level_logs(ticket: Ticket) -> dict[str, Any]:
    """Returns density, dead units and the scalar metrics of a level.

    Args:
        ticket: The trained ticket of the level.
    """
    dead = [
        int((~mask.reshape(-1, mask.shape[-1]).any(axis=0)).sum())
        for mask in ticket.masks.values()
    ]
    return {
        "density": ticket.density,
        "dead_units": sum(dead),
        **{
            name: value
            for name, value in _metrics(ticket).items()
            if isinstance(value, int | float)
        },
    }


def history(
    model: keras.Model, tickets: Sequence[Ticket]
) -> keras.callbacks.History:
    """Returns a Keras history with one epoch per level.

    Args:
        model: The model that the history belongs to.
        tickets: The trained tickets by level, at least one.
    """
    history = keras.callbacks.History()
    history.set_model(model)
    history.epoch = [ticket.level for ticket in tickets]
    rows = [{"density": t.density, **_metrics(t)} for t in tickets]
    history.history = {
        name: [row.get(name) for row in rows] for name in rows[0]
    }
    return history


def _metrics(ticket: Ticket) -> dict[str, Any]:
    """Returns all metrics, and `val_` names for those at early stop."""
    at_early_stop = {
        _AT_EARLY_STOP.sub(r"val_\1", name): value
        for name, value in ticket.metrics.items()
        if _AT_EARLY_STOP.match(name)
    }
    return {**ticket.metrics, **at_early_stop}
