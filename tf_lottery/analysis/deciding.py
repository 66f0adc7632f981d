"""The metric that decides a verdict: direction, unit and margin."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MARGIN = 0.002
"""Loss of accuracy that still counts as no loss. 0.2
percentage points is the tolerance of Frankle et al. 2020 (arXiv:1912.05671,
Sec. 4.4) for a subnetwork that matches."""

LOSS_MARGIN = 0.01
"""Increase of a loss that still counts as no increase, as a fraction of the
dense network's loss. No paper states one; 1 % is our choice."""

_LOSS = "loss"


@dataclasses.dataclass(frozen=True)
class Deciding:
    """The metric by which tickets are compared with the dense network.

    Attributes:
        name: Name of the metric in Keras.
        sign: 1 if higher is better, -1 if lower is better.
        margin: Difference that still counts as no worse, in the metric's unit.
        is_fraction: Whether it is a fraction of examples, shown in percent.
    """

    name: str
    sign: int
    margin: float
    is_fraction: bool = True

    @property
    def title(self) -> str:
        """Name of the metric in a sentence."""
        return self.name.replace("_", " ")

    def column(self, split: str) -> str:
        """Returns the column of results.csv with the value at early stop.

        Args:
            split: `"validation"` or `"test"`.
        """
        return f"{split}_{self.name}_at_early_stop"

    def gain(self, one: float, other: float) -> float:
        """Returns the improvement of one value over another.

        Args:
            one: Value of the metric.
            other: Value to compare with.
        """
        return self.sign * (one - other)

    def value(self, value: float) -> str:
        """Returns a value as text.

        Args:
            value: Value of the metric.
        """
        return f"{100 * value:.2f} %" if self.is_fraction else f"{value:.4g}"

    def difference(self, gain: float) -> str:
        """Returns a gain as text: the change of the metric, with its sign.

        Args:
            gain: Improvement in the metric's unit; above 0 is better.

        Example:
            >>> Deciding("accuracy", 1, 0.002).difference(0.0032)
            '+0.32 points'
            >>> Deciding("loss", -1, 0.01, False).difference(0.0032)
            '-0.0032'
        """
        if self.is_fraction:
            # Adding 0.0 turns -0.0 into 0.0.
            return f"{round(100 * gain, 2) + 0.0:+.2f} points"
        return f"{self.sign * gain:+.3g}"

    def bound(self, gain: float) -> str:
        """Returns a lower bound of a gain as text.

        Args:
            gain: Lower bound of the improvement, in the metric's unit.
        """
        side = "at least" if self.sign > 0 else "at most"
        return f"{side} {self.difference(gain)}"

    def __str__(self) -> str:
        """Describes the metric, its direction and the margin."""
        better = "higher" if self.sign > 0 else "lower"
        margin = f"{self.margin:.3g}"
        if self.is_fraction:
            margin = f"{100 * self.margin:.1f} points"
        return (
            f"validation {self.title} at early stop ({better} is better; "
            f"margin {margin})"
        )


def deciding(dense: Sequence[Mapping[str, Any]]) -> Deciding:
    """Returns the metric that decides a run.

    Args:
        dense: Rows of the run's dense networks. The margin of a loss is
            `LOSS_MARGIN` times their mean loss.
    """
    name = dense[0].get("deciding_metric", "accuracy") if dense else "accuracy"
    if name != _LOSS:
        return Deciding(name, 1, MARGIN)
    column = f"validation_{_LOSS}_at_early_stop"
    losses = [abs(row[column]) for row in dense if column in row]
    margin = LOSS_MARGIN * float(np.mean(losses or [0.0]))
    return Deciding(name, -1, margin, is_fraction=False)
