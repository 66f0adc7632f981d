"""Figure of learning curves on validation data."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from tf_lottery.analysis import table
from tf_lottery.analysis.deciding import Deciding
from tf_lottery.analysis.figures import quantities, style
from tf_lottery.analysis.figures.style import RenderedFigure
from tf_lottery.analysis.records import Network

# Frankle & Carbin 2019, Fig. 3.
_TICKETS = (1.0, 0.513, 0.211, 0.07, 0.036, 0.019)
_WITH_CONTROLS = 0.211


class _Mean(NamedTuple):
    steps: np.ndarray
    values: np.ndarray
    replicates: int


def draw(
    networks: Sequence[Network], metric: Deciding
) -> RenderedFigure | None:
    """Returns learning curves of tickets, and of one level with its controls.

    Args:
        networks: Records, draws of controls averaged.
        metric: Deciding metric of the run.

    Returns:
        The figure; `None` if the dense network has no learning curve.
    """
    column = f"validation_{metric.name}"
    networks = [n for n in networks if len(n.curve.get(column, ())) > 1]
    densities = {
        n.level: float(n.row["density"])
        for n in networks
        if n.variant == "ticket"
    }
    if 0 not in densities:
        return None
    levels = style.nearest(densities, _TICKETS)
    pruned = {level: d for level, d in densities.items() if level}
    controlled = style.nearest(pruned, [_WITH_CONTROLS]) if pruned else []
    figure, panels = style.grid(1 + bool(controlled))
    means = []
    for level, color in zip(levels, style.COLORS, strict=False):
        label = f"{style.percent(100 * densities[level])} %"
        group = _select(networks, level, "ticket")
        means.append(_curve(panels[0], group, metric, label, color, "-"))
    panels[0].set_title("tickets")
    for level in controlled:
        names = table.variants(networks)
        dense = _select(networks, 0, "ticket")
        _curve(panels[1], dense, metric, "dense", "#444444", ":")
        for name in names:
            group = _select(networks, level, name)
            look = style.look(name, names)
            if group:
                mean = _curve(
                    panels[1],
                    group,
                    metric,
                    name,
                    look["color"],
                    look["linestyle"],
                )
                means.append(mean)
        left = style.percent(100 * densities[level])
        panels[1].set_title(f"at {left} % of the weights")
    _limits(panels, means, networks)
    name = quantities.title("validation", metric)
    panels[0].set_ylabel(quantities.label("validation", metric))
    corner = "lower right" if metric.sign > 0 else "upper right"
    for axes in panels:
        axes.legend(frameon=False, fontsize=8.5, loc=corner)
    over = style.over(
        (mean.replicates for mean in means),
        "shaded from the lowest to the highest",
    )
    return style.finish(
        figure,
        f"{name.capitalize()} while training goes on (Fig. 3, there accuracy "
        "on test data): tickets by weights remaining, and one level with "
        f"its controls. {over} The steps shown end at four times the dense "
        "network's early stop.",
        _alt(name, panels),
    )


def _alt(name: str, panels: Sequence[Axes]) -> str:
    parts = []
    for axes in panels:
        _, labels = axes.get_legend_handles_labels()
        parts.append(f"{axes.get_title()}: {', '.join(labels)}")
    return f"Line charts of {name} against training steps. {'. '.join(parts)}."


def _select(
    networks: Sequence[Network], level: int, variant: str
) -> list[Network]:
    return [n for n in networks if (n.level, n.variant) == (level, variant)]


def _curve(
    axes: Axes,
    networks: Sequence[Network],
    metric: Deciding,
    label: str,
    color: str,
    line: str,
) -> _Mean:
    steps = np.array(networks[0].curve["step"])
    curves = quantities.scale(metric) * np.array(
        [
            n.curve[f"validation_{metric.name}"]
            for n in networks
            if list(n.curve["step"]) == steps.tolist()
        ]
    )
    mean = curves.mean(axis=0)
    axes.plot(steps, mean, color=color, linestyle=line, lw=1.2, label=label)
    axes.fill_between(
        steps,
        curves.min(axis=0),
        curves.max(axis=0),
        color=color,
        alpha=0.13,
        linewidth=0,
    )
    return _Mean(steps, mean, len(curves))


def _limits(
    panels: Sequence[Axes],
    means: Sequence[_Mean],
    networks: Sequence[Network],
) -> None:
    """Limits the axes to where curves differ, without start and plateau."""
    stops = [
        n.row["early_stop_step"]
        for n in networks
        if n.level == 0 and "early_stop_step" in n.row
    ]
    last = max(steps[-1] for steps, _, _ in means)
    end = min(last, 4 * float(np.mean(stops))) if stops else last
    late = [
        mean[(steps >= end / 10) & (steps <= end)] for steps, mean, _ in means
    ]
    seen = np.concatenate([values for values in late if len(values)])
    room = 0.06 * float(np.ptp(seen)) or 1.0
    for axes in panels:
        axes.set_xlim(0, end)
        axes.set_ylim(seen.min() - room, seen.max() + room)
        axes.set_xlabel("training steps")
        style.thousands(axes.xaxis)
        style.plain(axes)
