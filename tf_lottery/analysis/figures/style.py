"""Style and file formats of all figures."""

import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from tf_lottery.analysis.figures import narrow

# Okabe & Ito's colors, which color-blind readers can distinguish.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LOOKS = [(color, marker) for marker in "os^D" for color in COLORS]

_RC = {
    # A phone shows the figures at three quarters of their size.
    "font.size": 10.0,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.0,
    "lines.linewidth": 1.4,
    # Otherwise ids in SVG files are random.
    "svg.hashsalt": "tf_lottery",
    # Names come from files: a dollar sign in them is no formula.
    "text.parse_math": False,
}
_DPI = 160

APART = (
    "Points at one density are moved apart sideways, so that none hides "
    "another."
)
"""Sentence for the caption of a figure with points moved apart."""


@dataclasses.dataclass(frozen=True)
class RenderedFigure:
    """One figure as files.

    Attributes:
        caption: Content, number of replicates, and the paper's figure.
        alt: Alternative text, for readers who do not see the figure.
        png: Content of the PNG file.
        svg: Content of the SVG file.
        width: Width in CSS pixels, 96 per inch.
        narrow: Content of the PNG file for narrow screens, with panels below
            each other; empty if no panels are side by side.
    """

    caption: str
    alt: str
    png: bytes
    svg: bytes
    width: int
    narrow: bytes = b""

    @property
    def is_wide(self) -> bool:
        """Whether the figure takes the full width of a page."""
        return self.width > 96 * 5


def figure(width: float = 4.6, height: float = 3.4) -> Figure:
    """Returns an empty figure.

    Args:
        width: Width in inches.
        height: Height in inches, without the legend.
    """
    return Figure(figsize=(width, height), layout="constrained")


def grid(panels: int, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Returns a figure with panels, and their axes.

    Args:
        panels: Number of panels, >= 1.
        columns: Maximum number of panels in a row, >= 1.
    """
    columns = min(panels, columns)
    rows = -(-panels // columns)
    drawn = figure(0.4 + 2.7 * columns, 0.7 + 2.1 * rows)
    axes = drawn.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[panels:]:
        unused.remove()
    return drawn, axes[:panels]


def finish(drawn: Figure, caption: str, alt: str) -> RenderedFigure:
    """Returns a figure as files; equal figures have equal bytes.

    Args:
        drawn: The figure; its panels are rearranged for narrow screens.
        caption: Caption of the figure.
        alt: Alternative text of the figure.
    """
    svg = io.BytesIO()
    png = _png(drawn)
    # matplotlib writes the date and its version into files by default.
    FigureCanvasSVG(drawn).print_svg(
        svg, metadata={"Date": None, "Creator": None}
    )
    width = round(96 * drawn.get_figwidth())
    stacked = _png(drawn) if narrow.stack(drawn) else b""
    return RenderedFigure(caption, alt, png, svg.getvalue(), width, stacked)


def _png(drawn: Figure) -> bytes:
    png = io.BytesIO()
    drawn.set_dpi(_DPI)
    FigureCanvasAgg(drawn).print_png(png, metadata={"Software": None})
    return png.getvalue()


def styled() -> Any:
    """Returns a context manager that sets matplotlib's parameters."""
    return mpl.rc_context(_RC)


def look(variant: str, variants: Sequence[str]) -> dict[str, Any]:
    """Returns the color, marker and line style of a variant.

    Args:
        variant: One of `variants`.
        variants: All variants of the run.
    """
    color, marker = _LOOKS[variants.index(variant) % len(_LOOKS)]
    line = "--" if "ticket" in variants and variant != "ticket" else "-"
    return {"color": color, "marker": marker, "linestyle": line}


def layer_look(index: int, layers: int) -> dict[str, Any]:
    """Returns the color, marker and line style of a layer.

    Args:
        index: Index of the layer, from 0 on.
        layers: Number of layers.
    """
    if layers > len(COLORS):
        # Many layers can be told by their order only: dark to light.
        shade = 0.15 + 0.7 * index / layers
        return {"color": (0.1, shade, shade)}
    # The lines of layers with the same rate coincide.
    line = ("-", (2, (4, 4)), (5, (1, 3)))[index % 3]
    return {"color": COLORS[index], "marker": "osD"[index % 3], "ls": line}


def thousands(axis: Axis) -> None:
    """Labels an axis with integers such as 50,000.

    Args:
        axis: Axis of steps.
    """
    axis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def plain(axes: Axes) -> None:
    """Draws a faint grid and removes the top and right spines.

    Args:
        axes: Axes to change.
    """
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def density_axis(
    axes: Axes, densities: Iterable[float], ticks: int = 9, room: float = 1.0
) -> None:
    """Makes x the weights remaining in percent, from dense to sparse.

    Args:
        axes: Axes to change.
        densities: Densities of the points, in (0, 1].
        ticks: Approximate number of tick labels.
        room: Maximum factor between the x of a point and its density, >= 1.
    """
    percents = sorted({100 * density for density in densities}, reverse=True)
    axes.set_xscale("log")
    # With a single level the axis would have no length.
    edge = 1.08 * room
    axes.set_xlim(percents[0] * edge, min(percents[-1] / edge, 90))
    axes.set_xticks(_apart(percents, ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: percent(v)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weights remaining (%)")
    plain(axes)


def over(
    counts: Iterable[int], spread: str = "bars from the lowest to the highest"
) -> str:
    """Returns the number of replicates of a figure's means, as a sentence.

    Args:
        counts: Number of replicates of each mean.
        spread: Description of the bars or shading.

    Example:
        >>> over([1, 1])
        'One replicate (n = 1).'
        >>> over([5, 3], "bars to the highest")
        'Means over n = 3 to 5 replicates, bars to the highest.'
    """
    known = sorted(counts)
    fewest, most = known[0], known[-1]
    if most == 1:
        return "One replicate (n = 1)."
    n = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f"Means over n = {n} replicates, {spread}."


def percent(value: float) -> str:
    """Returns a percentage of weights as text, with three digits.

    Args:
        value: Percentage, in (0, 100].

    Example:
        >>> percent(100.0), percent(21.07), percent(0.0123)
        ('100', '21.1', '0.012')
    """
    if value >= 99.95:
        return "100"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def nearest(
    densities: Mapping[int, float], wanted: Sequence[float]
) -> list[int]:
    """Returns the levels with the nearest densities, rising, without repeats.

    Args:
        densities: Level to density.
        wanted: Densities to approach, in (0, 1].
    """
    levels = [
        min(densities, key=lambda n: (abs(densities[n] / w - 1), n))
        for w in wanted
    ]
    return sorted(set(levels))


def _apart(ticks: Sequence[float], most: int) -> list[float]:
    """Returns about `most` ticks with gaps between them on a log axis."""
    span = ticks[0] / ticks[-1]
    chosen: list[float] = []
    for tick in ticks:
        if not chosen or chosen[-1] / tick > max(1.15, span ** (1 / most)):
            chosen.append(tick)
    return chosen
