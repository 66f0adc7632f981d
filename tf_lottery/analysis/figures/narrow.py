"""The form of a figure for a narrow screen: panels below each other."""

from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from tf_lottery.analysis.figures import legend

_WIDTH, _PANEL, _REST = 3.4, 2.3, 0.7  # inches; a telephone has 3.4


def stack(drawn: Figure) -> bool:
    """Puts the panels of a figure below each other, if some are side by side.

    Args:
        drawn: The figure; its files in the wide form are written.

    Returns:
        Whether there was something to change.
    """
    # The axes of a colour bar follow their panel, and have no place of theirs.
    panels = [
        (axes, place)
        for axes in drawn.axes
        if (place := axes.get_subplotspec()) is not None
    ]
    if all(place.get_gridspec().ncols == 1 for _, place in panels):
        return False
    rows = GridSpec(len(panels), 1, figure=drawn)
    label = ""
    for row, (axes, _) in enumerate(panels):
        axes.set_subplotspec(rows[row])
        # The first panel of a row had the label of all.
        label = axes.get_ylabel() or label
        axes.set_ylabel(label)
    drawn.set_size_inches(_WIDTH, _REST + _PANEL * len(panels))
    legend.refit(drawn)
    return True
