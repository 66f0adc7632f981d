"""The metric that decides a verdict: its direction, unit and margin."""

import dataclasses
from collections.abc import Mapping
from typing import Any

MARGIN = 0.002
"""How much lower an accuracy may be and still count as no lower. 0.2
percentage points is the tolerance of Frankle et al. 2020 (arXiv:1912.05671,
Sec. 4.4) for a subnetwork that matches."""

LOSS_MARGIN = 0.01
"""By which fraction of the dense network's a loss may be higher and still
count as no higher. No paper states one; 1 % is ours."""

_LOSS = "loss"


@dataclasses.dataclass(frozen=True)
class Deciding:
    """The metric by which tickets are compared with the dense network.

    Attributes:
        name: As Keras names it.
        sign: 1 if higher is better, -1 if lower is.
        margin: How much worse still counts as no worse, in the metric's unit.
    """

    name: str
    sign: int
    margin: float

    @property
    def is_fraction(self) -> bool:
        """Whether it is a fraction of examples, to be told in percent."""
        return self.name != _LOSS

    def column(self, split: str) -> str:
        """Returns the column of its value at early stop."""
        return f"{split}_{self.name}_at_early_stop"

    def gain(self, one: float, other: float) -> float:
        """Returns by how much one value is better than another."""
        return self.sign * (one - other)

    def value(self, value: float) -> str:
        """Returns a value as text."""
        return f"{100 * value:.2f} %" if self.is_fraction else f"{value:.4g}"

    def difference(self, value: float) -> str:
        """Returns a difference of values as text, without its unit."""
        return f"{100 * value:+.2f}" if self.is_fraction else f"{value:+.3g}"


def deciding(dense: Mapping[str, Any]) -> Deciding:
    """Returns the metric that decides a run.

    Args:
        dense: The row of its dense network.
    """
    name = dense.get("deciding_metric", "accuracy")
    if name != _LOSS:
        return Deciding(name, 1, MARGIN)
    loss = abs(dense.get(f"validation_{_LOSS}_at_early_stop", 0.0))
    return Deciding(name, -1, LOSS_MARGIN * loss)
