"""The learning curve of a training."""

import math
from collections.abc import Mapping
from typing import Any

from tf_lottery.training.objective import EvalResult


class Log:
    """The learning curve of one network.

    Attributes:
        curve: One row per evaluation, in order of steps.
    """

    def __init__(self) -> None:
        self.curve: list[dict[str, Any]] = []
        self._training: dict[str, Any] = {}

    def add(
        self,
        step: int,
        training: Mapping[str, Any],
        splits: Mapping[str, EvalResult],
    ) -> bool:
        """Adds a row; returns whether its validation loss is the lowest so far.

        Args:
            step: Optimizer updates so far, > 0.
            training: Metrics of the training steps since the last row.
            splits: Split name to the evaluation result.
        """
        best = min(map(_validation_loss, self.curve), default=math.inf)
        self._training = dict(training)
        row: dict[str, Any] = {"step": step, **training}
        for split, (metrics, _) in splits.items():
            row.update((f"{split}_{k}", v) for k, v in metrics.items())
        self.curve.append(row)
        # Of equal minima the first counts: the earliest stop.
        return _validation_loss(row) < best

    def summary(
        self, stopped: Mapping[str, EvalResult], last: Mapping[str, EvalResult]
    ) -> dict[str, Any]:
        """Returns the metrics at the early-stop step and at the end.

        Names of training metrics have no prefix; they cover the steps since
        the last row.

        Args:
            stopped: Split name to result at the early-stop step; empty
                without validation data.
            last: Split name to result at the end.
        """
        ends = [("_at_early_stop", stopped), ("", last)]
        metrics = self._training | {
            f"{split}_{name}{suffix}": value
            for suffix, splits in ends
            for split, (values, _) in splits.items()
            for name, value in values.items()
        }
        if not stopped:
            return metrics
        best = min(self.curve, key=_validation_loss)
        return {"early_stop_step": int(best["step"]), **metrics}


def _validation_loss(row: Mapping[str, float]) -> float:
    return row.get("validation_loss", math.inf)
