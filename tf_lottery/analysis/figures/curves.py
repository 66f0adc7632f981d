"""Curves over densities: means over replicates, with bars."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from tf_lottery.analysis import table
from tf_lottery.analysis.figures import style
from tf_lottery.analysis.records import Network

Value = Callable[[Network], float | None]

# How far apart neighbours are moved, as a share of the axis: the width of a
# bar's caps and a little more.
_STEP = 0.018
# The curves of one level take at most so much of the way to the next level.
_SPREAD = 0.4


class Point(NamedTuple):
    """One level of a curve.

    Attributes:
        level: The level.
        percent: Weights remaining.
        mean: Over replicates.
        low: Of the lowest replicate.
        high: Of the highest.
        replicates: How many replicates there are.
        bounds: In how many of them the value is a lower bound only.
        x: Where it is drawn: beside `percent`, if curves share densities.
    """

    level: int
    percent: float
    mean: float
    low: float
    high: float
    replicates: int
    bounds: int
    x: float


Curve = list[Point]


def measured(
    networks: Sequence[Network],
    value: Value,
    is_bound: Callable[[Network], bool],
) -> dict[str, Curve]:
    """Returns the curve of each variant that was measured.

    Every curve begins at the dense network: its own, if it has one, else that
    which all share.

    Args:
        networks: Records, draws pooled.
        value: What is shown of a network; None if it was not measured.
        is_bound: Whether a network's value is a lower bound only.
    """
    found = {}
    dense = [n for n in networks if not n.level and n.variant == "ticket"]
    for name in table.variants(networks):
        own = [n for n in networks if n.variant == name]
        if all(n.level for n in own):
            own = [*dense, *own]
        levels: dict[int, list[tuple[float, float, bool]]] = {}
        for network in own:
            y = value(network)
            if y is not None:
                cell = 100 * network.row["density"], y, is_bound(network)
                levels.setdefault(network.level, []).append(cell)
        if levels:
            found[name] = [
                _point(n, cells) for n, cells in sorted(levels.items())
            ]
    return _apart(found, networks)


def _point(level: int, cells: Sequence[tuple[float, float, bool]]) -> Point:
    percents, values, bounds = zip(*cells, strict=True)
    percent, mean = float(np.mean(percents)), float(np.mean(values))
    low, high, count = min(values), max(values), len(values)
    return Point(level, percent, mean, low, high, count, sum(bounds), percent)


def _apart(
    curves: Mapping[str, Curve], networks: Sequence[Network]
) -> dict[str, Curve]:
    """Returns the curves moved sideways, so that bars do not overlap.

    The dense network that all curves share is one point and stays in place.
    """
    factors = dodge({n: [p.percent for p in c] for n, c in curves.items()})
    own_dense = {n.variant for n in networks if not n.level} & curves.keys()
    stays = len(own_dense) < 2
    return {
        name: [
            point._replace(x=point.percent * factors[name])
            if point.level or not stays
            else point
            for point in curve
        ]
        for name, curve in curves.items()
    }


def is_apart(curves: Mapping[str, Curve]) -> bool:
    """Returns whether any point is drawn beside its density."""
    return any(p.x != p.percent for curve in curves.values() for p in curve)


def dodge(percents: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Returns the factor of each curve that moves it sideways on a log axis.

    The factors are symmetric about 1. The ticket is in the middle; of an even
    number of curves no one is. Levels stay apart.

    Args:
        percents: Curve to the densities of its points.

    Example:
        >>> dodge({"ticket": [100.0, 50.0]})
        {'ticket': 1.0}
    """
    order = [name for name in percents if name != "ticket"]
    if "ticket" in percents:
        order.insert(len(order) // 2, "ticket")
    middle = (len(order) - 1) / 2
    step = _step(list(percents.values()))
    # From left to right, and the axis runs from dense to sparse.
    return {
        name: math.exp((middle - order.index(name)) * step) for name in percents
    }


def _step(curves: Sequence[Sequence[float]]) -> float:
    """Returns how far neighbours are moved apart, as a logarithm."""
    levels = {percent for curve in curves for percent in curve}
    if len(curves) < 2 or len(levels) < 2:
        return 0.0
    span = math.log(max(levels) / min(levels))
    # A control may keep a little more or less than its ticket, so gaps are
    # those within a curve.
    gaps = [
        abs(math.log(one / other))
        for curve in curves
        for one, other in zip(curve, curve[1:], strict=False)
        if one != other
    ]
    return min(_STEP * span, _SPREAD * min(gaps, default=0) / (len(curves) - 1))


def draw(axes: Axes, curves: Mapping[str, Curve], names: Sequence[str]) -> None:
    """Draws curves; points that are lower bounds are hollow.

    Args:
        axes: Where.
        curves: Variant to its points.
        names: All variants of the run, which decide how each looks.
    """
    for name, curve in curves.items():
        _draw_curve(axes, curve, name, names)


def draw_axis(
    axes: Axes,
    curves: Mapping[str, Curve],
    networks: Sequence[Network],
    ticks: int = 9,
) -> None:
    """Makes x the weights remaining, with room for what was moved.

    Args:
        axes: Where the curves are.
        curves: Variant to its points.
        networks: Records; their densities are the ticks.
        ticks: About how many of them are written.
    """
    moved = [p.x / p.percent for curve in curves.values() for p in curve]
    room = max((max(m, 1 / m) for m in moved), default=1.0)
    densities = (n.row["density"] for n in networks)
    style.density_axis(axes, densities, ticks, room)


def _draw_curve(
    axes: Axes, points: Curve, name: str, names: Sequence[str]
) -> None:
    look = style.look(name, names)
    x, mean, low, high = np.array(
        [(p.x, p.mean, p.low, p.high) for p in points]
    ).T
    axes.errorbar(
        x,
        mean,
        # Rounding could make a bar shorter than nothing.
        yerr=np.maximum((mean - low, high - mean), 0),
        label=name,
        markersize=3.2,
        elinewidth=0.9,
        capsize=1.8,
        **look,
    )
    hollow = [(p.x, p.mean) for p in points if p.bounds]
    if hollow:
        axes.plot(
            *zip(*hollow, strict=True),
            color=look["color"],
            marker=look["marker"],
            linestyle="",
            markersize=4.5,
            markerfacecolor="white",
            zorder=4,
        )
