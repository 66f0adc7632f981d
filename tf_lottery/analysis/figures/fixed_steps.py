"""This module knows the figure of accuracy after so many steps.

The paper reads its deep networks at fixed steps (Frankle & Carbin 2019, Sec.
4): with a schedule of learning rates the step of minimum loss says little.
"""

from collections.abc import Sequence

from tf_lottery.analysis.figures import against_density, style
from tf_lottery.analysis.figures.style import Drawing, Drawn

_ACCURACY = "validation_accuracy"
_PARTS = ((1, "a third"), (2, "two thirds"), (3, "all"))


def draw(networks: Sequence[Drawn]) -> Drawing | None:
    """Returns accuracy after a third, two thirds and all of training.

    Args:
        networks: Records, draws pooled. Those without a learning curve of
            three evaluations or more are not drawn.
    """
    networks = [n for n in networks if len(n.curve.get(_ACCURACY, ())) > 2]
    if not networks:
        return None
    figure, panels = style.grid(len(_PARTS))
    for axes, (part, name) in zip(panels, _PARTS, strict=True):

        def value(network: Drawn, part: int = part) -> float:
            return 100 * _at(network, part / len(_PARTS))[1]

        against_density.curves(axes, networks, value, ticks=5)
        step, _ = _at(networks[0], part / len(_PARTS))
        axes.set_title(f"after {name}: step {step:,}")
    panels[0].set_ylabel("validation accuracy (%)")
    style.legend(figure, panels[0], 4)
    return style.finish(
        figure,
        "Validation accuracy after a third, two thirds and all of training, "
        "the paper's measure for its deep networks (Figs. 7 and 8, there on "
        "test data).",
    )


def _at(network: Drawn, share: float) -> tuple[int, float]:
    """Returns the last evaluation within a share of training."""
    steps = list(network.curve["step"])
    # A third of the steps is no whole number of them.
    place = sum(step <= share * steps[-1] + 0.5 for step in steps) - 1
    return int(steps[max(place, 0)]), network.curve[_ACCURACY][max(place, 0)]
