"""This module knows the figures of one number a network, against density."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from tf_lottery.analysis import table
from tf_lottery.analysis.figures import style
from tf_lottery.analysis.figures.style import Drawing, Drawn, Mark
from tf_lottery.analysis.published import Band

Value = Callable[[Drawn], float | None]


class Point(NamedTuple):
    """One level of a curve.

    Attributes:
        percent: Weights remaining.
        mean: Over replicates.
        low: Of the lowest replicate.
        high: Of the highest.
        replicates: How many replicates there are.
    """

    percent: float
    mean: float
    low: float
    high: float
    replicates: int


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What a figure shows of every network.

    Attributes:
        label: The name of its axis.
        column: The column of results.csv that it is.
        scale: What it is multiplied with.
        caption: What is shown, and where the paper shows it.
    """

    label: str
    column: str
    scale: float
    caption: str


QUANTITIES = {
    "early_stop_step": Quantity(
        "early-stop step",
        "early_stop_step",
        1.0,
        "Early-stop step, that of minimum validation loss, against weights "
        "remaining (Figs. 1 left, 4a and 5).",
    ),
    "accuracy": Quantity(
        "test accuracy at early stop (%)",
        "test_accuracy_at_early_stop",
        100.0,
        "Test accuracy at the early-stop step (Figs. 1 right, 4a and 5).",
    ),
    "accuracy_at_end": Quantity(
        "test accuracy at the end (%)",
        "test_accuracy",
        100.0,
        "Test accuracy at the end of training (Fig. 4b).",
    ),
    "train_accuracy": Quantity(
        "training accuracy at the end (%)",
        "train_accuracy",
        100.0,
        "Training accuracy at the end of training (Figs. 5, 12 and 13): where "
        "it is 100 % for all, what tickets gain on test data is "
        "generalisation.",
    ),
    "validation_accuracy": Quantity(
        "validation accuracy at early stop (%)",
        "validation_accuracy_at_early_stop",
        100.0,
        "Validation accuracy at the early-stop step, by which tickets are "
        "judged (as in App. G and H).",
    ),
}
"""Every such figure by name."""


def draw(
    quantity: Quantity,
    networks: Sequence[Drawn],
    bands: Sequence[Band],
    published: bool,
) -> Drawing | None:
    """Returns the figure; None where nothing was measured.

    Args:
        quantity: What it shows.
        networks: Records, draws pooled.
        bands: The paper's curves.
        published: Whether the run has the paper's settings.
    """

    def value(network: Drawn) -> float | None:
        found = table.value(network, quantity.column)
        return None if found is None else quantity.scale * found

    if all(value(n) is None for n in networks):
        return None
    figure = style.figure()
    axes = figure.add_subplot()
    names = table.variants(networks)
    shown = [
        b for b in bands if b.column == quantity.column and b.variant in names
    ]
    sparsest = min(n.row["density"] for n in networks)
    for part, band in enumerate(shown):
        band_drawn = _band(
            axes, band, quantity.scale, sparsest, names, published
        )
        if band_drawn is not None:
            number = names.index(band.variant)
            band_drawn.set_gid(f"curve-{number}-band-{part}")
    marks = []
    for name, (bars, points) in curves(axes, networks, value).items():
        number = names.index(name)
        for part, artist in enumerate(bars.get_children()):
            artist.set_gid(f"curve-{number}-{part}")
        marks += [_mark(point, number, name, quantity) for point in points]
    axes.set_ylabel(quantity.label)
    if quantity.scale == 1:
        style.thousands(axes.yaxis)
    style.legend(figure, axes, 2 if shown else 4)
    caption = quantity.caption
    if shown:
        caption += (
            " Shaded: the paper's means, as far as its figures can be read"
        )
        caption += "." if published else ", at its settings, not this run's."
    return style.finish(figure, caption, marks)


def _mark(point: Point, number: int, name: str, quantity: Quantity) -> Mark:
    percent, accurate = style.percent(point.percent), quantity.scale == 100
    mean, low, high = (
        f"{v:.2f}" if accurate else f"{v:,.0f}"
        for v in (point.mean, point.low, point.high)
    )
    spread = (
        f" [{low}–{high}], n = {point.replicates}"
        if point.replicates > 1
        else ""
    )
    text = f"{mean}{' %' if accurate else ' steps'}{spread}"
    where = f"{name} at {percent} %"
    return Mark(point.percent, point.mean, number, name, (where, text))


def curves(
    axes: Axes, networks: Sequence[Drawn], value: Value, ticks: int = 9
) -> dict[str, tuple[ErrorbarContainer, list[Point]]]:
    """Draws a curve for each variant: means, bars from lowest to highest.

    Every curve begins at the dense network: its own, if it has one, else that
    which all share.

    Returns:
        What was drawn, by variant.
    """
    drawn = {}
    names = table.variants(networks)
    dense = [n for n in networks if not n.level and n.variant == "ticket"]
    for name in names:
        levels: dict[int, list[tuple[float, float]]] = {}
        own = [n for n in networks if n.variant == name]
        if all(n.level for n in own):
            own = [*dense, *own]
        for network in own:
            found = value(network)
            if found is not None:
                point = 100 * network.row["density"], found
                levels.setdefault(network.level, []).append(point)
        if levels:
            points = [_point(level) for level in levels.values()]
            drawn[name] = _curve(axes, points, name, names), points
    style.density_axis(axes, (n.row["density"] for n in networks), ticks)
    return drawn


def _point(replicates: Sequence[tuple[float, float]]) -> Point:
    percent, mean = np.mean(replicates, axis=0).tolist()
    values = [value for _, value in replicates]
    return Point(percent, mean, min(values), max(values), len(values))


def _curve(
    axes: Axes, points: Sequence[Point], name: str, names: Sequence[str]
) -> ErrorbarContainer:
    x, mean, low, high, _ = np.array(points).T
    return axes.errorbar(
        x,
        mean,
        # Rounding could make a bar shorter than nothing.
        yerr=np.maximum((mean - low, high - mean), 0),
        label=name,
        markersize=3.2,
        elinewidth=0.9,
        capsize=1.8,
        **style.look(name, names),
    )


def _band(
    axes: Axes,
    band: Band,
    scale: float,
    sparsest: float,
    names: Sequence[str],
    published: bool,
) -> Artist | None:
    x = np.log(list(band.points))
    low, high = scale * np.array(list(band.points.values())).T
    # No further than the run: the rest would only squeeze its curves.
    end = max(x[-1], np.log(sparsest))
    if end > x[0]:
        return None
    at = np.array([*x[x > end], end])
    low, high = (np.interp(-at, -x, y) for y in (low, high))
    percent = 100 * np.exp(at)
    whose = "" if published else ", other settings"
    label = f"{band.variant}, Frankle & Carbin{whose}"
    colour = style.look(band.variant, names)["color"]
    if len(percent) > 1:
        return axes.fill_between(
            percent, low, high, color=colour, alpha=0.22, lw=0, label=label
        )
    return axes.vlines(
        percent, low, high, color=colour, alpha=0.3, lw=7, label=label
    )
