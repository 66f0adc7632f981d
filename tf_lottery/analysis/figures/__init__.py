"""The paper's figures, drawn from the records of a run.

One module per kind of figure; `draw` calls all of them.
"""

from collections.abc import Mapping, Sequence

from tf_lottery.analysis import control_draws, table
from tf_lottery.analysis.catch_up import with_catch_up
from tf_lottery.analysis.figures import (
    against_density,
    connectivity,
    fixed_steps,
    learning_curves,
    quantities,
    style,
    ticket_structure,
)
from tf_lottery.analysis.figures.connectivity import InterpolatedErrors
from tf_lottery.analysis.figures.style import RenderedFigure
from tf_lottery.analysis.published import Band
from tf_lottery.analysis.records import Network
from tf_lottery.analysis.ticket_structure import TicketStructure


def draw(
    networks: Sequence[Network],
    bands: Sequence[Band] = (),
    published: bool = False,
    tickets: TicketStructure | None = None,
    paths: Sequence[InterpolatedErrors] = (),
    stable: float = 0.0,
) -> dict[str, RenderedFigure]:
    """Returns the figures by name.

    Curves are means over replicates, with bars from the lowest to the
    highest, as in the paper. Figures without measurements are left out.

    Args:
        networks: Records of all replicates.
        bands: The paper's curves, for comparison.
        published: Whether the run has the paper's settings; if not, the
            labels of the bands say so.
        tickets: Tickets of one replicate, for the figures of App. F.
        paths: Errors between networks and their copies.
        stable: Barrier below which a network is called stable, in [0, 1].
    """
    metric = table.deciding_metric(networks)
    networks = control_draws.pool(with_catch_up(networks, never=1.0))
    with style.styled():
        drawn: dict[str, RenderedFigure | None] = {
            name: against_density.draw(quantity, networks, bands, published)
            for name, quantity in quantities.of(metric).items()
        }
        if tickets is not None:
            drawn["layer_densities"] = ticket_structure.densities(tickets)
        drawn["learning_curves"] = learning_curves.draw(networks, metric)
        drawn["fixed_steps"] = fixed_steps.draw(networks, metric)
        if tickets is not None:
            drawn["initial_weights"] = ticket_structure.initial_weights(tickets)
            drawn["distance_moved"] = ticket_structure.distance_moved(tickets)
            drawn["connections"] = ticket_structure.connections(tickets)
            drawn["pixels"] = ticket_structure.pixels(tickets)
        drawn["connectivity"] = connectivity.draw(paths, stable)
    return {name: d for name, d in drawn.items() if d is not None}


def compare(networks: Sequence[Network]) -> dict[str, RenderedFigure]:
    """Returns the figures of several runs' tickets, by name.

    Args:
        networks: Records of all runs; `variant` is the name of the run.
    """
    metric = table.deciding_metric(networks)
    networks = with_catch_up(networks, never=1.0)
    with style.styled():
        drawn = {
            name: against_density.draw(quantity, networks, (), False)
            for name, quantity in quantities.of(metric).items()
        }
    return {name: d for name, d in drawn.items() if d is not None}


def files(drawn: Mapping[str, RenderedFigure]) -> dict[str, bytes]:
    """Returns the content of PNG and SVG files by file name.

    Args:
        drawn: Name to figure, as `draw` returns.
    """
    return {
        f"{name}.{kind}": getattr(drawing, kind)
        for name, drawing in drawn.items()
        for kind in ("png", "svg")
    }


__all__ = ["InterpolatedErrors", "RenderedFigure", "compare", "draw", "files"]
