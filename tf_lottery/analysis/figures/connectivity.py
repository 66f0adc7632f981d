"""Figure of the errors on the line between two copies of a network."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tf_lottery.analysis.figures import legend, style
from tf_lottery.analysis.figures.style import RenderedFigure

_SPLITS = ("test", "validation", "train")
_SHOWN = (1.0, 0.5, 0.2, 0.05, 0.015)


class InterpolatedErrors(NamedTuple):
    """Errors on the line between a network and its copy in another data order.

    Attributes:
        level: Level of both networks.
        density: Density of both networks, in (0, 1].
        alphas: Share of the copy's weights at each point, from 0 to 1.
        errors: Split to the error at each point, in [0, 1].
        barriers: Split to the error barrier, in [0, 1].
    """

    level: int
    density: float
    alphas: Sequence[float]
    errors: Mapping[str, Sequence[float]]
    barriers: Mapping[str, float]


def draw(
    paths: Sequence[InterpolatedErrors], stable: float
) -> RenderedFigure | None:
    """Returns errors on the lines, and barriers against density.

    Args:
        paths: Errors of all replicates.
        stable: Barrier below which a network is called stable, in [0, 1].

    Returns:
        The figure; `None` without errors.
    """
    if not paths:
        return None
    split = next(s for s in _SPLITS if s in paths[0].errors)
    levels: dict[int, list[InterpolatedErrors]] = {}
    for path in paths:
        levels.setdefault(path.level, []).append(path)
    densities = {level: group[0].density for level, group in levels.items()}
    figure, (left, right) = style.grid(2)
    shown = style.nearest(densities, _SHOWN)
    labels = [f"{style.percent(100 * densities[n])} %" for n in shown]
    for level, label, color in zip(shown, labels, style.COLORS, strict=False):
        errors = 100 * np.array([p.errors[split] for p in levels[level]])
        left.plot(
            levels[level][0].alphas,
            errors.mean(axis=0),
            label=label,
            color=color,
        )
    left.set_xlabel("from one copy (0) to the other (1)")
    left.set_ylabel(f"{split} error (%)")
    style.plain(left)
    barriers = [
        [100 * path.barriers[split] for path in group]
        for group in levels.values()
    ]
    mean, low, high = (
        np.array([reduce(group) for group in barriers])
        for reduce in (np.mean, np.min, np.max)
    )
    right.errorbar(
        [100 * density for density in densities.values()],
        mean,
        yerr=np.maximum((mean - low, high - mean), 0),
        color=style.COLORS[0],
        marker="o",
        markersize=3.2,
        elinewidth=0.9,
        capsize=1.8,
    )
    right.axhline(100 * stable, color="#555", linewidth=0.8, linestyle=":")
    right.set_ylabel(f"barrier in {split} error (points)")
    style.density_axis(right, densities.values(), 5)
    legend.draw(figure, left, 5, "weights remaining")
    return style.finish(
        figure,
        "Two copies trained under different orders of the data. First: the "
        "error on the straight line between them. Second: the barrier, how far "
        "the highest error lies above the mean of the ends; below the dotted "
        "line Frankle et al. 2020 (arXiv:1912.05671) call a network stable. "
        + style.over(
            map(len, barriers),
            "bars on the barriers from the lowest to the highest",
        ),
        f"Two line charts. First: {split} error (%) from one copy to the "
        f"other, at {', '.join(labels)} of the weights. Second: the barrier "
        f"against weights remaining, {_ends(mean)} points.",
    )


def _ends(means: np.ndarray) -> str:
    if len(means) < 2:
        return f"{means[0]:.2f}"
    return f"from {means[0]:.2f} (densest) to {means[-1]:.2f} (sparsest)"
