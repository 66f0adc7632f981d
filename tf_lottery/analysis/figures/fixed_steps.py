"""Figure of validation accuracy, or loss, at three fixed steps.

The paper compares its deep networks at fixed steps (Frankle & Carbin 2019, Sec.
4): with a learning-rate schedule, the step of minimum loss says little.
"""

from collections.abc import Sequence

from tf_lottery.analysis import table
from tf_lottery.analysis.deciding import Deciding
from tf_lottery.analysis.figures import curves, legend, quantities, style
from tf_lottery.analysis.figures.style import RenderedFigure
from tf_lottery.analysis.records import Network

_PARTS = ((1, "a third"), (2, "two thirds"), (3, "all"))


def draw(
    networks: Sequence[Network], metric: Deciding
) -> RenderedFigure | None:
    """Returns the metric after a third, two thirds and all of training.

    Args:
        networks: Records, draws of controls averaged. Networks with fewer than
            three evaluations are left out.
        metric: Deciding metric of the run.

    Returns:
        The figure; `None` without such networks.
    """
    column = f"validation_{metric.name}"
    networks = [n for n in networks if len(n.curve.get(column, ())) > 2]
    if not networks:
        return None
    figure, panels = style.grid(len(_PARTS))
    names = table.variants(networks)
    for axes, (part, name) in zip(panels, _PARTS, strict=True):

        def value(network: Network, part: int = part) -> float:
            _, y = _last_evaluation(network, column, part / len(_PARTS))
            return quantities.scale(metric) * y

        measured = curves.measured(networks, value, lambda _: False)
        curves.draw(axes, measured, names)
        curves.draw_axis(axes, measured, networks, ticks=5)
        step, _ = _last_evaluation(networks[0], column, part / len(_PARTS))
        axes.set_title(f"after {name}: step {step:,}")
    panels[0].set_ylabel(quantities.label("validation", metric))
    legend.draw(figure, panels[0], 4)
    points = [point for curve in measured.values() for point in curve]
    title = quantities.title("validation", metric)
    caption = [
        f"{title.capitalize()} after a third, two thirds and all of training, "
        "the paper's measure for its deep networks (Figs. 7 and 8, there "
        "accuracy on test data).",
        style.over(point.replicates for point in points),
        *([style.APART] if curves.is_apart(measured) else []),
    ]
    return style.finish(
        figure,
        " ".join(caption),
        f"Line charts of {title} against weights remaining (%), after a "
        f"third, two thirds and all of training, of {', '.join(names)}.",
    )


def _last_evaluation(
    network: Network, column: str, share: float
) -> tuple[int, float]:
    """Returns step and value of the last evaluation in a share of training."""
    steps = list(network.curve["step"])
    # The share of the steps may be a fraction.
    count = sum(step <= share * steps[-1] + 0.5 for step in steps)
    index = max(count - 1, 0)
    return int(steps[index]), network.curve[column][index]
