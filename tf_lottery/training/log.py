"""This module knows how the evaluations of a run are gathered."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


class Log:
    """The evaluations of a run, and what was right at the best of them."""

    def __init__(self) -> None:
        self.curve: list[dict[str, float]] = []
        self.correct: dict[str, np.ndarray] = {}
        self._best = math.inf

    def add(
        self,
        step: int,
        loss: float,
        splits: Mapping[str, tuple[Mapping[str, float], np.ndarray]],
    ) -> None:
        """Adds an evaluation: of each split its figures, and what was right."""
        row = {"step": step, "loss": loss}
        for split, (figures, _) in splits.items():
            row.update((f"{split}_{k}", v) for k, v in figures.items())
        self.curve.append(row)
        validation_loss = row.get("validation_loss", math.inf)
        if validation_loss < self._best:
            self._best = validation_loss
            self.correct = {s: right for s, (_, right) in splits.items()}

    def summary(self) -> dict[str, Any]:
        """Returns the figures at the early-stop step, and at the end."""
        if not self.curve:
            return {}
        last = {k: v for k, v in self.curve[-1].items() if "_" in k}
        if "validation_loss" not in last:
            return last
        # The first of equal minima: the earliest stop.
        best = min(self.curve, key=lambda row: row["validation_loss"])
        stopped = {f"{key}_at_early_stop": best[key] for key in last}
        return {"early_stop_step": int(best["step"]), **stopped, **last}
