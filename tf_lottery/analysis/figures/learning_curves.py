"""This module knows the figure of accuracy while training goes on."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from tf_lottery.analysis import table
from tf_lottery.analysis.figures import style
from tf_lottery.analysis.figures.style import Drawing, Drawn

_ACCURACY = "validation_accuracy"

# Frankle & Carbin 2019, Fig. 3.
_TICKETS = (1.0, 0.513, 0.211, 0.07, 0.036, 0.019)
_WITH_CONTROLS = 0.211


def draw(networks: Sequence[Drawn]) -> Drawing | None:
    """Returns learning curves: tickets by density, one beside its controls.

    Args:
        networks: Records, draws pooled.
    """
    networks = [n for n in networks if len(n.curve.get(_ACCURACY, ())) > 1]
    densities = {
        n.level: float(n.row["density"])
        for n in networks
        if n.variant == "ticket"
    }
    if 0 not in densities:
        return None
    levels = style.nearest(densities, _TICKETS)
    pruned = {level: d for level, d in densities.items() if level}
    beside = style.nearest(pruned, [_WITH_CONTROLS]) if pruned else []
    figure, panels = style.grid(1 + bool(beside))
    means = []
    for level, colour in zip(levels, style.COLOURS, strict=False):
        label = f"{style.percent(100 * densities[level])} %"
        own = _of(networks, level, "ticket")
        means.append(_curve(panels[0], own, label, colour, "-"))
    panels[0].set_title("tickets")
    for level in beside:
        names = table.variants(networks)
        dense = _of(networks, 0, "ticket")
        _curve(panels[1], dense, "dense", "#444444", ":")
        for name in names:
            own = _of(networks, level, name)
            look = style.look(name, names)
            if own:
                mean = _curve(
                    panels[1], own, name, look["color"], look["linestyle"]
                )
                means.append(mean)
        left = style.percent(100 * densities[level])
        panels[1].set_title(f"at {left} % of the weights")
    _limits(panels, means, networks)
    panels[0].set_ylabel("validation accuracy (%)")
    for axes in panels:
        axes.legend(frameon=False, fontsize=7.5, loc="lower right")
    return style.finish(
        figure,
        "Validation accuracy while training goes on (Fig. 3, there on test "
        "data): tickets by weights remaining, and one level beside its "
        "controls. Shaded from the lowest to the highest replicate; the steps "
        "shown end at four times the dense network's early stop.",
    )


def _of(networks: Sequence[Drawn], level: int, variant: str) -> list[Drawn]:
    return [n for n in networks if (n.level, n.variant) == (level, variant)]


def _curve(
    axes: Axes, networks: Sequence[Drawn], label: str, colour: str, line: str
) -> tuple[np.ndarray, np.ndarray]:
    steps = np.array(networks[0].curve["step"])
    curves = 100 * np.array(
        [
            n.curve[_ACCURACY]
            for n in networks
            if list(n.curve["step"]) == steps.tolist()
        ]
    )
    mean = curves.mean(axis=0)
    axes.plot(steps, mean, color=colour, linestyle=line, lw=1.2, label=label)
    axes.fill_between(
        steps,
        curves.min(axis=0),
        curves.max(axis=0),
        color=colour,
        alpha=0.13,
        linewidth=0,
    )
    return steps, mean


def _limits(
    panels: Sequence[Axes],
    means: Sequence[tuple[np.ndarray, np.ndarray]],
    networks: Sequence[Drawn],
) -> None:
    """Shows where curves part: not the first tenth, nor the long plateau."""
    stops = [
        n.row["early_stop_step"]
        for n in networks
        if n.level == 0 and "early_stop_step" in n.row
    ]
    last = max(steps[-1] for steps, _ in means)
    end = min(last, 4 * float(np.mean(stops))) if stops else last
    late = [mean[(steps >= end / 10) & (steps <= end)] for steps, mean in means]
    seen = np.concatenate([values for values in late if len(values)])
    room = 0.06 * float(np.ptp(seen)) or 1.0
    for axes in panels:
        axes.set_xlim(0, end)
        axes.set_ylim(seen.min() - room, seen.max() + room)
        axes.set_xlabel("training steps")
        style.thousands(axes.xaxis)
        style.plain(axes)
