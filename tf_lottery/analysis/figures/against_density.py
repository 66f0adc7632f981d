"""Figures of one quantity against density."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from tf_lottery.analysis import table
from tf_lottery.analysis.figures import curves, legend, style
from tf_lottery.analysis.figures.curves import Curve
from tf_lottery.analysis.figures.quantities import Quantity
from tf_lottery.analysis.figures.style import RenderedFigure
from tf_lottery.analysis.published import Band
from tf_lottery.analysis.records import Network

_MAX_CURVES = 6
"""Maximum number of curves in an alternative text, which is read aloud."""


def draw(
    quantity: Quantity,
    networks: Sequence[Network],
    bands: Sequence[Band],
    published: bool,
) -> RenderedFigure | None:
    """Returns the figure of a quantity; `None` if it was not measured.

    Args:
        quantity: Quantity on the y axis.
        networks: Records, draws of controls averaged.
        bands: The paper's curves, of any quantity and variant.
        published: Whether the run has the paper's settings.
    """

    def value(network: Network) -> float | None:
        y = table.value(network, quantity.column)
        return None if y is None else quantity.scale * y

    def is_bound(network: Network) -> bool:
        return bool(table.value(network, quantity.bound))

    measured = curves.measured(networks, value, is_bound)
    if not measured:
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
    curves.draw(axes, measured, names)
    curves.draw_axis(axes, measured, networks)
    axes.set_ylabel(quantity.label)
    if quantity.counts_steps:
        style.thousands(axes.yaxis)
    if quantity.scale == 100:
        # No fraction is above 100 %.
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    legend.draw(figure, axes, 2 if shown else 4)
    caption = _caption(quantity, measured, bool(shown), published)
    return style.finish(figure, caption, _alt(quantity, measured))


def _caption(
    quantity: Quantity,
    measured: Mapping[str, Curve],
    has_bands: bool,
    published: bool,
) -> str:
    points = [point for curve in measured.values() for point in curve]
    parts = [quantity.caption, style.over([p.replicates for p in points])]
    if curves.is_apart(measured):
        parts.append(style.APART)
    if any(point.bounds for point in points):
        parts.append(quantity.bound_caption)
    if has_bands:
        suffix = "" if published else ", at its settings, not this run's"
        parts.append(
            "Shaded: the paper's means, as far as its figures can be "
            f"read{suffix}."
        )
    return " ".join(parts)


def _alt(quantity: Quantity, measured: Mapping[str, Curve]) -> str:
    parts = [
        f"{name}: {_ends(curve, quantity)}"
        for name, curve in list(measured.items())[:_MAX_CURVES]
    ]
    if len(measured) > _MAX_CURVES:
        parts.append(f"and {len(measured) - _MAX_CURVES} more curves")
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
    # A band that is longer than the run's curves would only compress them.
    end = max(x[-1], np.log(sparsest))
    if end > x[0]:
        return
    x_band = np.array([*x[x > end], end])
    low, high = (np.interp(-x_band, -x, y) for y in (low, high))
    percent = 100 * np.exp(x_band)
    suffix = "" if published else ", other settings"
    label = f"{band.variant}, Frankle & Carbin{suffix}"
    color = style.look(band.variant, names)["color"]
    if len(percent) > 1:
        axes.fill_between(
            percent, low, high, color=color, alpha=0.22, lw=0, label=label
        )
    else:
        axes.vlines(
            percent, low, high, color=color, alpha=0.3, lw=7, label=label
        )
