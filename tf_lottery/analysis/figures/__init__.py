"""The paper's figures, drawn from the records of a run.

One file per kind of figure; `draw` is the table.
"""

from collections.abc import Mapping, Sequence

from tf_lottery.analysis import control_draws, table
from tf_lottery.analysis.catch_up import with_catch_up
from tf_lottery.analysis.figures import (
    against_density,
    connectivity,
    fixed_steps,
    inside,
    learning_curves,
    quantities,
    style,
)
from tf_lottery.analysis.figures.connectivity import Between
from tf_lottery.analysis.figures.style import Drawing
from tf_lottery.analysis.published import Band
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.ticket_structure import TicketStructure


def draw(
    networks: Sequence[Network],
    bands: Sequence[Band] = (),
    published: bool = False,
    tickets: TicketStructure | None = None,
    lines: Sequence[Between] = (),
    stable: float = 0.0,
) -> dict[str, Drawing]:
    """Returns the figures by name.

    Means over replicates, bars from the lowest to the highest, as the paper
    has them. What was not measured is not drawn.

    Args:
        networks: Records of all replicates.
        bands: The paper's curves, drawn beside the run's.
        published: Whether the run has the paper's settings; if not, the bands
            say so.
        tickets: The tickets of one replicate, for the figures of App. F.
        lines: What lies between networks and their copies.
        stable: The barrier below which a network is called stable.
    """
    metric = table.deciding_metric(networks)
    networks = control_draws.pool(with_catch_up(networks, never=1.0))
    with style.styled():
        drawn: dict[str, Drawing | None] = {
            name: against_density.draw(quantity, networks, bands, published)
            for name, quantity in quantities.of(metric).items()
        }
        if tickets is not None:
            drawn["layer_densities"] = inside.densities(tickets)
        drawn["learning_curves"] = learning_curves.draw(networks, metric)
        drawn["fixed_steps"] = fixed_steps.draw(networks, metric)
        if tickets is not None:
            drawn["initial_weights"] = inside.initial_weights(tickets)
            drawn["distance_moved"] = inside.distance_moved(tickets)
            drawn["connections"] = inside.connections(tickets)
            drawn["pixels"] = inside.pixels(tickets)
        drawn["connectivity"] = connectivity.draw(lines, stable)
    return {name: d for name, d in drawn.items() if d is not None}


def compare(networks: Sequence[Network]) -> dict[str, Drawing]:
    """Returns the figures of several runs' tickets, by name.

    Args:
        networks: Records of all runs; the variant of each is its run.
    """
    metric = table.deciding_metric(networks)
    networks = with_catch_up(networks, never=1.0)
    with style.styled():
        drawn = {
            name: against_density.draw(quantity, networks, (), False)
            for name, quantity in quantities.of(metric).items()
        }
    return {name: d for name, d in drawn.items() if d is not None}


def files(drawn: Mapping[str, Drawing]) -> dict[str, bytes]:
    """Returns the figures' files by name."""
    return {
        f"{name}.{kind}": getattr(drawing, kind)
        for name, drawing in drawn.items()
        for kind in ("png", "svg")
    }


__all__ = ["Between", "Drawing", "compare", "draw", "files"]
