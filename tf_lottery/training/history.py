"""The evaluations of a training, in order."""

import math
from collections.abc import Mapping
from typing import Any

from tf_lottery.training.objective import EvalResult


class Log:
    """The evaluations of a run.

    Attributes:
        curve: One row for each evaluation.
    """

    def __init__(self) -> None:
        self.curve: list[dict[str, Any]] = []
        self._trained: dict[str, Any] = {}

    def add(
        self,
        step: int,
        trained: Mapping[str, Any],
        splits: Mapping[str, EvalResult],
    ) -> bool:
        """Adds an evaluation; returns whether it is the best so far.

        Args:
            step: At which step.
            trained: Metrics over the training steps since the last one.
            splits: Split to what the network comes to on it.
        """
        best = min(map(_validation_loss, self.curve), default=math.inf)
        self._trained = dict(trained)
        row: dict[str, Any] = {"step": step, **trained}
        for split, (metrics, _) in splits.items():
            row.update((f"{split}_{k}", v) for k, v in metrics.items())
        self.curve.append(row)
        # The first of equal minima: the earliest stop.
        return _validation_loss(row) < best

    def summary(
        self, stopped: Mapping[str, EvalResult], last: Mapping[str, EvalResult]
    ) -> dict[str, Any]:
        """Returns the metrics at the early-stop step, and at the end.

        Those of the last training steps have no split before their names.

        Args:
            stopped: Split to results at the early-stop step; empty without
                validation data.
            last: Split to results at the end.
        """
        ends = [("_at_early_stop", stopped), ("", last)]
        metrics = self._trained | {
            f"{split}_{name}{when}": value
            for when, splits in ends
            for split, (values, _) in splits.items()
            for name, value in values.items()
        }
        if not stopped:
            return metrics
        best = min(self.curve, key=_validation_loss)
        return {"early_stop_step": int(best["step"]), **metrics}


def _validation_loss(row: Mapping[str, float]) -> float:
    return row.get("validation_loss", math.inf)
