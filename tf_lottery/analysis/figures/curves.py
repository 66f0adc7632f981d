"""Curves against density: means over replicates, with bars."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from tf_lottery.analysis import table
from tf_lottery.analysis.figures import style
from tf_lottery.analysis.records import Network

Value = Callable[[Network], float | None]

# Distance between neighboring curves as a share of the axis: a little more than
# the width of a bar's caps.
_STEP = 0.018
# Maximum width of a level's curves, as a share of the gap to the next level.
_SPREAD = 0.4


class Point(NamedTuple):
    """One level of a curve.

    Attributes:
        level: The level.
        percent: Weights remaining, in (0, 100].
        mean: Mean over replicates.
        low: Value of the lowest replicate.
        high: Value of the highest replicate.
        replicates: Number of replicates.
        bounds: Number of replicates whose value is only a lower bound.
        x: Where the point is drawn: next to `percent` if curves share
            densities.
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

    Every curve begins at the variant's dense network, or at the tickets' dense
    network if the variant has none.

    Args:
        networks: Records, draws of controls averaged.
        value: Function from a network to its value; `None` if not measured.
        is_bound: Whether a network's value is only a lower bound.
    """
    curves = {}
    dense = [n for n in networks if not n.level and n.variant == "ticket"]
    for name in table.variants(networks):
        of_variant = [n for n in networks if n.variant == name]
        if all(n.level for n in of_variant):
            of_variant = [*dense, *of_variant]
        levels: dict[int, list[tuple[float, float, bool]]] = {}
        for network in of_variant:
            y = value(network)
            if y is not None:
                cell = 100 * network.row["density"], y, is_bound(network)
                levels.setdefault(network.level, []).append(cell)
        if levels:
            curves[name] = [
                _point(n, cells) for n, cells in sorted(levels.items())
            ]
    return _apart(curves, networks)


def _point(level: int, cells: Sequence[tuple[float, float, bool]]) -> Point:
    percents, values, bounds = zip(*cells, strict=True)
    percent, mean = float(np.mean(percents)), float(np.mean(values))
    low, high, count = min(values), max(values), len(values)
    return Point(level, percent, mean, low, high, count, sum(bounds), percent)


def _apart(
    curves: Mapping[str, Curve], networks: Sequence[Network]
) -> dict[str, Curve]:
    """Returns the curves moved sideways, so that bars do not overlap.

    A dense network that all curves share is not moved.
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
    """Returns whether any point is drawn next to its density.

    Args:
        curves: Variant to its points.
    """
    return any(p.x != p.percent for curve in curves.values() for p in curve)


def dodge(percents: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Returns the factor that moves each curve sideways on a log axis.

    The factors are symmetric about 1, and levels do not overlap. The ticket is
    in the middle if the number of curves is odd.

    Args:
        percents: Curve to the densities of its points, in percent.

    Example:
        >>> dodge({"ticket": [100.0, 50.0]})
        {'ticket': 1.0}
    """
    order = [name for name in percents if name != "ticket"]
    if "ticket" in percents:
        order.insert(len(order) // 2, "ticket")
    middle = (len(order) - 1) / 2
    step = _step(list(percents.values()))
    # The axis runs from dense to sparse, so larger factors are further left.
    return {
        name: math.exp((middle - order.index(name)) * step) for name in percents
    }


def _step(curves: Sequence[Sequence[float]]) -> float:
    """Returns the distance between neighboring curves, as a logarithm."""
    levels = {percent for curve in curves for percent in curve}
    if len(curves) < 2 or len(levels) < 2:
        return 0.0
    span = math.log(max(levels) / min(levels))
    # Gaps are taken within a curve, because the density of a control may
    # differ slightly from its ticket's.
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
        axes: Axes to draw on.
        curves: Variant to its points.
        names: All variants of the run, which determine the styles.
    """
    for name, curve in curves.items():
        _draw_curve(axes, curve, name, names)


def draw_axis(
    axes: Axes,
    curves: Mapping[str, Curve],
    networks: Sequence[Network],
    ticks: int = 9,
) -> None:
    """Makes x the weights remaining, with room for points moved sideways.

    Args:
        axes: Axes of the curves.
        curves: Variant to its points.
        networks: Records; their densities are the ticks.
        ticks: Approximate number of tick labels.
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
        # Rounding can make a length slightly negative.
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
