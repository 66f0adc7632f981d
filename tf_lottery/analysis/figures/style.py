"""The look of all figures, and their files."""

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

# Okabe & Ito's colours, told apart by colour-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LOOKS = [(color, marker) for marker in "os^D" for color in COLORS]

_RC = {
    # A telephone shows the figures at three quarters of their size.
    "font.size": 10.0,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.0,
    "lines.linewidth": 1.4,
    # Ids in SVG files are drawn at random otherwise.
    "svg.hashsalt": "tf_lottery",
}
_DPI = 160

APART = (
    "Points at one density are moved apart sideways, so that none hides "
    "another."
)
"""What a caption says of such points."""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One figure.

    Attributes:
        caption: What it shows, of how many replicates, and to which figure of
            the paper it corresponds.
        alt: What there is to see, for readers who do not see it.
        png: As PNG.
        svg: As SVG.
        width: Its width in CSS pixels, 96 an inch.
        narrow: As PNG for a narrow screen, its panels below each other; empty
            if it has no panels side by side.
    """

    caption: str
    alt: str
    png: bytes
    svg: bytes
    width: int
    narrow: bytes = b""

    @property
    def wide(self) -> bool:
        """Whether it fills a page's width."""
        return self.width > 96 * 5


def figure(width: float = 4.6, height: float = 3.4) -> Figure:
    """Returns an empty figure of a width and height in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def grid(panels: int, most: int = 3) -> tuple[Figure, list[Axes]]:
    """Returns a figure of so many panels, at most so many in a row."""
    columns = min(panels, most)
    rows = -(-panels // columns)
    drawn = figure(0.4 + 2.7 * columns, 0.7 + 2.1 * rows)
    axes = drawn.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[panels:]:
        unused.remove()
    return drawn, axes[:panels]


def finish(drawn: Figure, caption: str, alt: str) -> Drawing:
    """Returns a figure as files, equal for equal figures.

    Args:
        drawn: The figure.
        caption: What it shows.
        alt: What there is to see.
    """
    svg = io.BytesIO()
    png = _png(drawn)
    # Without the date and version that matplotlib writes into files.
    FigureCanvasSVG(drawn).print_svg(
        svg, metadata={"Date": None, "Creator": None}
    )
    width = round(96 * drawn.get_figwidth())
    stacked = _png(drawn) if narrow.stack(drawn) else b""
    return Drawing(caption, alt, png, svg.getvalue(), width, stacked)


def _png(drawn: Figure) -> bytes:
    png = io.BytesIO()
    drawn.set_dpi(_DPI)
    FigureCanvasAgg(drawn).print_png(png, metadata={"Software": None})
    return png.getvalue()


def styled() -> Any:
    """Returns a context in which figures look alike."""
    return mpl.rc_context(_RC)


def look(variant: str, variants: Sequence[str]) -> dict[str, Any]:
    """Returns the colour, marker and line of a variant among others."""
    color, marker = _LOOKS[variants.index(variant) % len(_LOOKS)]
    line = "--" if "ticket" in variants and variant != "ticket" else "-"
    return {"color": color, "marker": marker, "linestyle": line}


def layer_look(index: int, layers: int) -> dict[str, Any]:
    """Returns the colour, marker and line of one layer among so many."""
    if layers > len(COLORS):
        # Their order is what can be read off: dark to light.
        shade = 0.15 + 0.7 * index / layers
        return {"color": (0.1, shade, shade)}
    # Layers of one rate lie upon each other.
    line = ("-", (2, (4, 4)), (5, (1, 3)))[index % 3]
    return {"color": COLORS[index], "marker": "osD"[index % 3], "ls": line}


def thousands(axis: Axis) -> None:
    """Writes the numbers of an axis of steps as 50,000: whole ones."""
    axis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def plain(axes: Axes) -> None:
    """Draws a faint grid, and no box."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def density_axis(
    axes: Axes, densities: Iterable[float], ticks: int = 9, room: float = 1.0
) -> None:
    """Makes x the weights remaining in percent, dense to sparse.

    Args:
        axes: Whose x axis.
        densities: In (0, 1].
        ticks: About how many of them are written.
        room: By what factor points are drawn beside their densities at most.
    """
    percents = sorted({100 * density for density in densities}, reverse=True)
    axes.set_xscale("log")
    # A lone level would leave the axis without a length.
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
    """Returns how many replicates a figure's means are over, as a sentence.

    Args:
        counts: Of each mean.
        spread: What shows how far replicates differ.

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
    """Returns a percentage of weights as the paper writes it.

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
    """Returns the levels whose densities come nearest to some, each once."""
    levels = [
        min(densities, key=lambda n: (abs(densities[n] / w - 1), n))
        for w in wanted
    ]
    return sorted(set(levels))


def _apart(ticks: Sequence[float], most: int) -> list[float]:
    """Returns about so many ticks that stand apart on a log axis."""
    span = ticks[0] / ticks[-1]
    kept: list[float] = []
    for tick in ticks:
        if not kept or kept[-1] / tick > max(1.15, span ** (1 / most)):
            kept.append(tick)
    return kept
