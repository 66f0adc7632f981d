"""The outcome of training one network: a result, or divergence."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lottery.training.state import Arrays, State

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The result of training one network.

    Attributes:
        trained: Path to value of every variable of the model at the end.
        best: The same at the early-stop step; None without validation data.
        metrics: Metrics by Keras' names, with the split as prefix, and
            `steps`, `seconds` and `deciding_metric`. With validation data
            also `early_stop_step`, the step of minimum validation loss over
            the complete run, determined afterwards (Frankle & Carbin 2019,
            App. C), and the metrics at that step.
        curve: One row per evaluation, with its `step`; training metrics cover
            the steps since the row before.
        per_example: `"validation"` and `"test"` to the deciding metric of each
            example at the early-stop step, bool or float32 `[examples]`.
        slots: Name to value of every variable of the optimizer at the end;
            empty unless the job has `keeps_slots`.
        captured: The states at the job's `capture` steps, in order.
    """

    trained: Arrays
    metrics: Mapping[str, Any]
    curve: tuple[Row, ...]
    per_example: Mapping[str, np.ndarray]
    best: Arrays | None = None
    slots: Arrays = dataclasses.field(default_factory=dict)
    captured: tuple[State, ...] = ()


@dataclasses.dataclass(frozen=True)
class Diverged:
    """The end of a training that diverged.

    Attributes:
        first: The last step known to have a finite training loss.
        last: The first step known to have a loss that is not finite.
        loss: The loss at step `last`: nan or infinite. Also nan if the last
            step made weights nan or infinite, which no loss shows.
    """

    first: int
    last: int
    loss: float

    def __str__(self) -> str:
        return (
            f"The training loss became {self.loss} between steps {self.first} "
            f"and {self.last}. Lower the learning rate, or clip gradients."
        )


Outcome = TrainingResult | Diverged
"""The outcome of training one network."""
