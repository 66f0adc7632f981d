"""This module knows the figures of the paper, drawn of a run."""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from tf_lottery.analysis import table
from tf_lottery.analysis.winning import Trained

# Okabe & Ito's colours, told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_ACCURACY = "validation_accuracy"
_LOOKS = [(colour, marker) for marker in "os^D" for colour in _COLOURS]


class Drawn(Trained, Protocol):
    """A trained network with its learning curve."""

    @property
    def curve(self) -> Mapping[str, Sequence[float]]:
        """Column to values over its evaluations."""


def draw(networks: Sequence[Drawn]) -> dict[str, bytes]:
    """Returns the figures by name, as PNG.

    `accuracy` and `early_stop_step` against density, ticket against controls:
    means over replicates, bars from the lowest to the highest (Frankle &
    Carbin 2019, Figs. 1 and 4); `learning_curves`, validation accuracy
    against the step, of tickets at a few densities (Fig. 3). What was not
    measured is not drawn.

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
    drawn = {
        name: _figure(networks, label, columns, scale)
        for name, (label, columns, scale) in figures.items()
        if any(table.value(n, *columns) is not None for n in networks)
    }
    tickets = [
        n
        for n in networks
        if n.variant == "ticket" and len(n.curve.get(_ACCURACY, ())) > 1
    ]
    if tickets:
        drawn["learning_curves"] = _learning_curves(tickets)
    return drawn


def _learning_curves(tickets: Sequence[Drawn]) -> bytes:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    levels = sorted({n.level for n in tickets})
    spread = np.linspace(0, len(levels) - 1, min(len(levels), len(_COLOURS)))
    lowest, highest = 1.0, 0.0
    for colour, place in zip(_COLOURS, spread.round(), strict=False):
        here = [n for n in tickets if n.level == levels[int(place)]]
        steps = here[0].curve["step"]
        curves = np.array(
            [n.curve[_ACCURACY] for n in here if n.curve["step"] == steps]
        )
        mean = curves.mean(axis=0)
        label = f"{100 * here[0].row['density']:.1f} %"
        axes.plot(steps, 100 * mean, color=colour, linewidth=1.4, label=label)
        axes.fill_between(
            steps,
            100 * curves.min(axis=0),
            100 * curves.max(axis=0),
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        # What happens in the first tenth would hide all that comes later.
        late = mean[len(mean) // 10 :]
        lowest, highest = min(lowest, late.min()), max(highest, mean.max())
    room = 5 * (highest - lowest) or 1
    axes.set_ylim(100 * lowest - room, 100 * highest + room)
    axes.set_xlabel("training steps")
    axes.set_ylabel("validation accuracy (%)")
    _plain(axes)
    axes.legend(
        frameon=False,
        title="weights remaining",
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return _png(figure)


def _figure(
    networks: Sequence[Drawn],
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
    networks: Sequence[Drawn],
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


def _axes(axes: Axes, networks: Sequence[Drawn], label: str) -> None:
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
    _plain(axes)
    axes.legend(frameon=False)


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


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
