"""This module knows how the evaluations of a run are gathered."""

import math
from collections.abc import Mapping
from typing import Any

from tf_lottery.training.measure import Figures


class Log:
    """The evaluations of a run.

    Attributes:
        curve: One row for each evaluation.
    """

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []

    def add(
        self, step: int, loss: float, splits: Mapping[str, Figures]
    ) -> bool:
        """Adds an evaluation; returns whether it is the best so far."""
        best = min(map(_validation_loss, self.curve), default=math.inf)
        row: dict[str, float] = {"step": step, "loss": loss}
        for split, (figures, _) in splits.items():
            row.update((f"{split}_{k}", v) for k, v in figures.items())
        self.curve.append(row)
        # The first of equal minima: the earliest stop.
        return _validation_loss(row) < best

    def summary(
        self, stopped: Mapping[str, Figures], last: Mapping[str, Figures]
    ) -> dict[str, Any]:
        """Returns the figures at the early-stop step, and at the end.

        Args:
            stopped: Split to figures at the early-stop step; empty without
                validation data.
            last: Split to figures at the end.
        """
        ends = [("_at_early_stop", stopped), ("", last)]
        figures = {
            f"{split}_{name}{when}": value
            for when, splits in ends
            for split, (values, _) in splits.items()
            for name, value in values.items()
        }
        if not stopped:
            return figures
        best = min(self.curve, key=_validation_loss)
        return {"early_stop_step": int(best["step"]), **figures}


def _validation_loss(row: Mapping[str, float]) -> float:
    return row.get("validation_loss", math.inf)
