"""Figures of the weights and connections of tickets (App. F)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from tf_lottery.analysis import ticket_structure
from tf_lottery.analysis.figures import legend, style
from tf_lottery.analysis.figures.style import RenderedFigure
from tf_lottery.analysis.ticket_structure import TicketStructure

# Frankle & Carbin 2019, App. F: densities of Figs. 15, 16 and 21-24, and the
# density of Figs. 19 and 20.
_DENSITIES = (1.0, 0.4105, 0.1688, 0.0695)
_DENSITY = 0.1688
# Densities of Fig. 3.
_PICTURED = (0.513, 0.211, 0.07, 0.036, 0.019)
_PANELS = 6  # The panels of more layers would be too small.


def densities(tickets: TicketStructure) -> RenderedFigure:
    """Returns the density of each layer against that of all layers.

    Args:
        tickets: Tickets of one replicate.
    """
    levels = sorted(tickets.masks)
    paths = tickets.layers
    figure = style.figure()
    axes = figure.add_subplot()
    for index, path in enumerate(paths):
        shares = [100 * tickets.layer_density(n, path) for n in levels]
        axes.plot(
            [100 * tickets.density(n) for n in levels],
            shares,
            markersize=3,
            label=_name(path),
            **style.layer_look(index, len(paths)),
        )
    style.density_axis(axes, (tickets.density(n) for n in levels))
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda v, _: style.percent(v))
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.set_ylabel("remaining in a layer (%)")
    legend.draw(figure, axes, 3)
    return style.finish(
        figure,
        "Weights remaining in each layer, against those in all of them, of "
        f"{_replicate(tickets)}. The rates are the settings' (Fig. 2); "
        "under global pruning, what the scores made of them.",
        "Line chart of the weights remaining in each layer (%) against those "
        f"in all layers. At {_percent(tickets, levels[-1])} of all weights: "
        f"{_listed_densities(tickets, levels[-1])}.",
    )


def initial_weights(tickets: TicketStructure) -> RenderedFigure:
    """Returns the distributions of initial weights that survive.

    Args:
        tickets: Tickets of one replicate.
    """
    paths = _shown(tickets)
    figure, panels = style.grid(len(paths))
    for axes, path in zip(panels, paths, strict=True):
        bins = _bins(tickets.survivors(0, path))
        for level, color in _levels(tickets):
            weights = tickets.survivors(level, path)
            _histogram(axes, weights, bins, color, _percent(tickets, level))
        axes.set_title(_name(path))
        axes.set_xlabel("initial weight")
    panels[0].set_ylabel("probability density")
    legend.draw(figure, panels[0], 4, "weights remaining")
    return style.finish(
        figure,
        "Initial weights of those that survive, by layer (App. F.1 and F.2, "
        f"Figs. 15 and 16), of {_replicate(tickets)}{_left_out(tickets)}.",
        f"Distributions of initial weights in {_layers(paths)}, each with one "
        f"curve for the survivors at {_levels_text(tickets)} of the weights.",
    )


def distance_moved(tickets: TicketStructure) -> RenderedFigure:
    """Returns how far weights move while the dense network trains.

    Args:
        tickets: Tickets of one replicate.
    """
    paths = _shown(tickets, 3)
    wanted = {n: tickets.density(n) for n in tickets.masks if n}
    (level,) = style.nearest(wanted, [_DENSITY])
    figure, panels = style.grid(2 * len(paths), len(paths))
    rows = (
        ("|θT − θ0|", tickets.moved, panels[: len(paths)]),
        ("|θT| − |θ0|", tickets.grown, panels[len(paths) :]),
    )
    for label, measure, row in rows:
        for axes, path in zip(row, paths, strict=True):
            values = measure(path)
            bins = _bins(values[tickets.masks[0][path]])
            sides = zip(
                tickets.sides(level, path),
                ("survives", "is pruned"),
                style.COLORS,
                strict=False,
            )
            for side, name, color in sides:
                _histogram(axes, values[side], bins, color, name)
            axes.set_xlabel(label)
            axes.set_title(_name(path))
        row[0].set_ylabel("probability density")
    legend.draw(figure, panels[0], 2)
    return style.finish(
        figure,
        "How far weights move while the dense network trains, by whether they "
        f"survive at {_percent(tickets, level)} (App. F.5, Figs. 19 and 20), "
        f"of {_replicate(tickets)}{_left_out(tickets, 3)}. θ0: initial "
        "weights; θT: trained ones.",
        "Distributions of how far weights move, and of how much their "
        f"magnitudes grow, in {_layers(paths)}; one curve for weights that "
        f"survive at {_percent(tickets, level)}, one for those pruned.",
    )


def pixels(tickets: TicketStructure) -> RenderedFigure | None:
    """Returns pictures of the number of weights that read each pixel.

    Args:
        tickets: Tickets of one replicate.

    Returns:
        The figure; `None` if no kernel reads flattened images.
    """
    if tickets.image is None:
        return None
    densities_by_level = {n: tickets.density(n) for n in tickets.masks if n}
    levels = style.nearest(densities_by_level, _PICTURED)
    figure, panels = style.grid(len(levels))
    for axes, level in zip(panels, levels, strict=True):
        read = tickets.readers(level)
        picture = axes.imshow(read, "Blues", vmin=0, interpolation="nearest")
        figure.colorbar(picture, ax=axes, shrink=0.9)
        axes.set_title(_percent(tickets, level))
        axes.set_axis_off()
    return style.finish(
        figure,
        f"How many weights of {_name(tickets.reader)} read each pixel, by "
        f"weights remaining, of {_replicate(tickets)}; each picture "
        "has its own scale, white where no weight is left.",
        f"Pictures of {tickets.image[0]} by {tickets.image[1]} pixels, darker "
        "where more weights read a pixel, at "
        f"{', '.join(_percent(tickets, n) for n in levels)} of the weights.",
    )


def connections(tickets: TicketStructure) -> RenderedFigure:
    """Returns the share of connections that units keep.

    Args:
        tickets: Tickets of one replicate.
    """
    paths = _shown(tickets, 3)
    figure, panels = style.grid(2 * len(paths), len(paths))
    rows = (
        ("incoming, of an output unit (%)", ticket_structure.incoming),
        ("outgoing, of an input unit (%)", ticket_structure.outgoing),
    )
    for index, (label, share) in enumerate(rows):
        row = panels[index * len(paths) : (index + 1) * len(paths)]
        for axes, path in zip(row, paths, strict=True):
            for level, color in _levels(tickets)[1:]:
                shares = 100 * share(tickets.masks[level][path])
                bins = np.linspace(0, 100, 41 if len(shares) > 100 else 21)
                _histogram(axes, shares, bins, color, _percent(tickets, level))
            axes.set_xlabel(label)
            axes.set_title(_name(path))
        row[0].set_ylabel("probability density")
    legend.draw(figure, panels[0], 3, "weights remaining")
    return style.finish(
        figure,
        "Share of their connections that units keep (App. F.6, Figs. 21 to "
        f"24), of {_replicate(tickets)}{_left_out(tickets, 3)}. Above: of "
        "incoming ones; below: of outgoing ones.",
        "Distributions of the share of connections that units keep in "
        f"{_layers(paths)}, incoming and outgoing, at "
        f"{_levels_text(tickets, 1)} of the weights.",
    )


def _shown(tickets: TicketStructure, most: int = _PANELS) -> list[str]:
    """Returns the layers to draw: all, or evenly chosen from first to last."""
    paths = tickets.layers
    indices = np.linspace(0, len(paths) - 1, min(most, len(paths)))
    return [paths[round(index)] for index in indices]


def _replicate(tickets: TicketStructure) -> str:
    return f"replicate {tickets.replicate} alone (n = 1)"


def _listed_densities(tickets: TicketStructure, level: int) -> str:
    parts = [
        f"{_name(p)} {style.percent(100 * tickets.layer_density(level, p))} %"
        for p in _shown(tickets)
    ]
    return ", ".join(parts)


def _layers(paths: Sequence[str]) -> str:
    return ", ".join(map(_name, paths))


def _left_out(tickets: TicketStructure, most: int = _PANELS) -> str:
    layers = len(tickets.layers)
    return f"; {most} of its {layers} layers" if layers > most else ""


def _levels(tickets: TicketStructure) -> list[tuple[int, str]]:
    densities_by_level = {n: tickets.density(n) for n in tickets.masks}
    levels = style.nearest(densities_by_level, _DENSITIES)
    return list(zip(levels, ("#444444", *style.COLORS), strict=False))


def _levels_text(tickets: TicketStructure, first: int = 0) -> str:
    levels = _levels(tickets)[first:]
    return ", ".join(_percent(tickets, level) for level, _ in levels)


def _percent(tickets: TicketStructure, level: int) -> str:
    return f"{style.percent(100 * tickets.density(level))} %"


def _name(path: str) -> str:
    return path.removesuffix("/kernel")


def _bins(values: np.ndarray) -> np.ndarray:
    # Without outliers, which would compress the rest of the histogram.
    low, high = np.quantile(values, (0.001, 0.999))
    count = 50 if values.size >= 10_000 else 20
    return np.linspace(low, high if high > low else low + 1, count + 1)


def _histogram(
    axes: Axes,
    values: np.ndarray,
    bins: Sequence[float] | np.ndarray,
    color: str,
    label: str,
) -> None:
    counts, edges = np.histogram(values, bins)
    heights = counts / max(1, counts.sum()) / np.diff(edges)
    axes.stairs(heights, edges, color=color, label=label, linewidth=1.2)
    style.plain(axes)
