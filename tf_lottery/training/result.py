"""What training one network gave: a record, or that it diverged."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lottery.training.state import Arrays, State

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The record of one trained network.

    Attributes:
        trained: Path to value of every variable of the model at the end.
        best: The same at the early-stop step; None without validation data.
        metrics: Metrics of the run, as Keras names them, with the split before
            them. `steps`, `seconds` and `deciding_metric` always;
            `early_stop_step`, the step of minimum validation loss over the
            whole run, found afterwards (Frankle & Carbin 2019, App. C), and
            what was measured there where there is validation data.
        curve: One row for each evaluation, with its `step`; training metrics
            are those over the steps since the row before.
        per_example: `"validation"` and `"test"` to the deciding metric of each
            example at the early-stop step, bool or float32 `[examples]`.
        slots: Name to value of every variable of the optimizer at the end, if
            they were to be kept.
        captured: The states at the steps that were to be captured, in order.
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
        first: The last step at which the training loss was known to be finite.
        last: The first step at which it was seen not to be.
        loss: What it was there: nan or infinite. Also nan if the last step
            left weights that are nan or infinite, so that no loss showed it.
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
"""What training one network gave."""
