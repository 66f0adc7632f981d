"""Figures for narrow screens, with panels below each other."""

from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from tf_lottery.analysis.figures import legend

_WIDTH, _PANEL, _REST = 3.4, 2.3, 0.7  # inches; a phone has 3.4


def stack(figure: Figure) -> bool:
    """Puts the panels of a figure below each other, if some are side by side.

    Args:
        figure: The figure, which is changed.

    Returns:
        Whether the figure was changed.
    """
    # The axes of a color bar follow their panel and have no subplotspec.
    panels = [
        (axes, spec)
        for axes in figure.axes
        if (spec := axes.get_subplotspec()) is not None
    ]
    if all(spec.get_gridspec().ncols == 1 for _, spec in panels):
        return False
    rows = GridSpec(len(panels), 1, figure=figure)
    label = ""
    for row, (axes, _) in enumerate(panels):
        axes.set_subplotspec(rows[row])
        # Only the first panel of a row has a label.
        label = axes.get_ylabel() or label
        axes.set_ylabel(label)
    figure.set_size_inches(_WIDTH, _REST + _PANEL * len(panels))
    legend.refit(figure)
    return True
