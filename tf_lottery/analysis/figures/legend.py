"""Legends below a figure, with every label inside its edges."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend

_INCH = 0.3
"""Height of a legend of one row, which figures have room for."""

_FONT = 9
_FITS = 0.97  # At another resolution the width of letters is rounded again.
_WRAPPED = (40, 30, 20, 12)  # characters a line


def draw(figure: Figure, axes: Axes, columns: int, title: str = "") -> None:
    """Draws a legend below the figure, the run's curves before the bands.

    It has as many columns as fit; a label wider than the figure is broken into
    lines. The figure grows by the height of the legend, so its axes keep
    theirs.

    Args:
        figure: The figure.
        axes: Axes with the labeled curves.
        columns: Maximum number of columns, >= 1.
        title: Title of the legend.
    """
    entries = sorted(
        zip(*axes.get_legend_handles_labels(), strict=True),
        key=lambda entry: not isinstance(entry[0], ErrorbarContainer),
    )
    handles, labels = map(list, zip(*entries, strict=True))
    _fit(figure, handles, labels, columns, title)


def refit(figure: Figure) -> None:
    """Draws the legend of a figure again, after its size was changed.

    Args:
        figure: Figure; its legend, if any, is that of its first axes.
    """
    for legend in figure.legends.copy():
        legend.remove()
        title = legend.get_title().get_text()
        draw(figure, figure.axes[0], len(legend.get_texts()), title)


def _fit(
    figure: Figure,
    handles: Sequence[Any],
    labels: Sequence[str],
    columns: int,
    title: str,
) -> None:
    forms = list(_forms(labels, columns))
    for names, count in forms:
        legend = figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=count,
            frameon=False,
            fontsize=_FONT,
            title=title or None,
            title_fontsize=_FONT,
        )
        width, _ = _inches(figure, legend)
        is_last = (names, count) == forms[-1]
        if is_last or width <= _FITS * figure.get_figwidth():
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + _extra(figure, legend))


def _forms(
    labels: Sequence[str], columns: int
) -> Iterator[tuple[list[str], int]]:
    """Yields labels and a number of columns, from wide to narrow."""
    for count in range(min(columns, len(labels)), 0, -1):
        yield list(labels), count
    for width in _WRAPPED:
        yield [_wrapped(label, width) for label in labels], 1


def _wrapped(label: str, width: int) -> str:
    """Returns a label in lines; labels of sweeps break after commas."""
    return textwrap.fill(label.replace(",", ", "), width)


def _extra(figure: Figure, legend: Legend) -> float:
    return max(0.0, _inches(figure, legend)[1] - _INCH)


def _inches(figure: Figure, legend: Legend) -> tuple[float, float]:
    renderer = FigureCanvasAgg(figure).get_renderer()
    extent = legend.get_tightbbox(renderer)
    if extent is None:
        return 0.0, 0.0
    return extent.width / figure.dpi, extent.height / figure.dpi
