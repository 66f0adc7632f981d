"""Figures of one number of every network, against density."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from tf_lottery.analysis import table
from tf_lottery.analysis.figures import curves, legend, style
from tf_lottery.analysis.figures.curves import Curve
from tf_lottery.analysis.figures.quantities import Quantity
from tf_lottery.analysis.figures.style import Drawing
from tf_lottery.analysis.published import Band
from tf_lottery.analysis.records import Network

_MAX_CURVES = (
    6  # An alternative text with more curves is too long to listen to.
)


def draw(
    quantity: Quantity,
    networks: Sequence[Network],
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

    def value(network: Network) -> float | None:
        found = table.value(network, quantity.column)
        return None if found is None else quantity.scale * found

    def is_bound(network: Network) -> bool:
        return bool(table.value(network, quantity.bound))

    found = curves.measured(networks, value, is_bound)
    if not found:
        return None
    figure = style.figure()
    axes = figure.add_subplot()
    names = table.variants(networks)
    shown = [
        b for b in bands if b.column == quantity.column and b.variant in names
    ]
    sparsest = min(n.row["density"] for n in networks)
    for band in shown:
        _draw_band(axes, band, quantity.scale, sparsest, names, published)
    curves.draw(axes, found, names)
    curves.draw_axis(axes, found, networks)
    axes.set_ylabel(quantity.label)
    if quantity.counts_steps:
        style.thousands(axes.yaxis)
    if quantity.scale == 100:
        # Nothing is above 100 %.
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    legend.draw(figure, axes, 2 if shown else 4)
    caption = _caption(quantity, found, bool(shown), published)
    return style.finish(figure, caption, _alt(quantity, found))


def _caption(
    quantity: Quantity,
    found: Mapping[str, Curve],
    has_bands: bool,
    published: bool,
) -> str:
    points = [point for curve in found.values() for point in curve]
    parts = [quantity.caption, style.over([p.replicates for p in points])]
    if curves.is_apart(found):
        parts.append(style.APART)
    if any(point.bounds for point in points):
        parts.append(quantity.bound_caption)
    if has_bands:
        whose = "" if published else ", at its settings, not this run's"
        parts.append(
            "Shaded: the paper's means, as far as its figures can be "
            f"read{whose}."
        )
    return " ".join(parts)


def _alt(quantity: Quantity, found: Mapping[str, Curve]) -> str:
    parts = [
        f"{name}: {_ends(curve, quantity)}"
        for name, curve in list(found.items())[:_MAX_CURVES]
    ]
    if len(found) > _MAX_CURVES:
        parts.append(f"and {len(found) - _MAX_CURVES} more curves")
    return (
        f"Line chart of {quantity.label} against weights remaining (%). "
        f"{'; '.join(parts)}."
    )


def _ends(curve: Curve, quantity: Quantity) -> str:
    ends = [curve[0], *curve[-1:]] if len(curve) > 1 else curve
    return ", ".join(
        f"{quantity.text(p.mean)}{quantity.unit} at "
        f"{style.percent(p.percent)} %"
        for p in ends
    )


def _draw_band(
    axes: Axes,
    band: Band,
    scale: float,
    sparsest: float,
    names: Sequence[str],
    published: bool,
) -> None:
    x = np.log(list(band.points))
    low, high = scale * np.array(list(band.points.values())).T
    # No further than the run: the rest would only squeeze its curves.
    end = max(x[-1], np.log(sparsest))
    if end > x[0]:
        return
    at = np.array([*x[x > end], end])
    low, high = (np.interp(-at, -x, y) for y in (low, high))
    percent = 100 * np.exp(at)
    whose = "" if published else ", other settings"
    label = f"{band.variant}, Frankle & Carbin{whose}"
    color = style.look(band.variant, names)["color"]
    if len(percent) > 1:
        axes.fill_between(
            percent, low, high, color=color, alpha=0.22, lw=0, label=label
        )
    else:
        axes.vlines(
            percent, low, high, color=color, alpha=0.3, lw=7, label=label
        )
