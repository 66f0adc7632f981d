"""This module knows the two figures that everyone knows, drawn of a run."""

import io
import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from tf_lottery.analysis import table
from tf_lottery.analysis.winning import Trained

# Okabe & Ito's colours, told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LOOKS = [(colour, marker) for marker in "os^D" for colour in _COLOURS]


def draw(networks: Sequence[Trained]) -> dict[str, bytes]:
    """Returns the figures by name, as PNG.

    `accuracy` and `early_stop_step` against density, ticket against controls:
    means over replicates, bars from the lowest to the highest (Frankle &
    Carbin 2019, Figs. 1, 3 and 4). What was not measured is not drawn.

    Args:
        networks: Records of all replicates.
    """
    figures = {
        "accuracy": (
            "test accuracy at early stop (%)",
            table.ACCURACIES,
            100.0,
        ),
        "early_stop_step": ("early-stop step", ("early_stop_step",), 1.0),
    }
    return {
        name: _figure(networks, label, columns, scale)
        for name, (label, columns, scale) in figures.items()
        if any(table.value(n, *columns) is not None for n in networks)
    }


def _figure(
    networks: Sequence[Trained],
    label: str,
    columns: tuple[str, ...],
    scale: float,
) -> bytes:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    dense = [n for n in networks if n.level == 0]
    for variant, look in zip(
        table.variants(networks), itertools.cycle(_LOOKS), strict=False
    ):
        # Every curve begins at the dense network, which all of them share.
        shown = [n for n in networks if n.variant == variant and n.level]
        _curve(axes, [*dense, *shown], columns, scale, variant, look)
    _axes(axes, networks, label)
    return _png(figure)


def _curve(
    axes: Axes,
    networks: Sequence[Trained],
    columns: tuple[str, ...],
    scale: float,
    name: str,
    look: tuple[str, str],
) -> None:
    points: dict[int, list[tuple[float, float]]] = {}
    for network in networks:
        found = table.value(network, *columns)
        if found is not None:
            point = (100 * network.row["density"], scale * found)
            points.setdefault(network.level, []).append(point)
    if not points:
        return
    x = [sum(d for d, _ in p) / len(p) for p in points.values()]
    y = [sum(v for _, v in p) / len(p) for p in points.values()]
    low = [
        m - min(v for _, v in p)
        for m, p in zip(y, points.values(), strict=True)
    ]
    high = [
        max(v for _, v in p) - m
        for m, p in zip(y, points.values(), strict=True)
    ]
    axes.errorbar(
        x,
        y,
        yerr=(low, high),
        label=name,
        color=look[0],
        marker=look[1],
        markersize=4,
        linewidth=1.6,
        capsize=2,
        linestyle="-" if name == "ticket" else "--",
    )


def _axes(axes: Axes, networks: Sequence[Trained], label: str) -> None:
    ticks = sorted({100 * n.row["density"] for n in networks}, reverse=True)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks(_apart(ticks))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: f"{v:.1f}" if v >= 1 else f"{v:.2g}")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weights remaining (%)")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _apart(ticks: Sequence[float]) -> list[float]:
    """Returns the ticks that do not run into each other on a log axis."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or kept[-1] / tick > 1.15:
            kept.append(tick)
    return kept


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the date and version that matplotlib writes into files.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
