"""This module knows what training a network leaves behind."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_lottery.training.state import Arrays, State

Row = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Run:
    """The record of one trained network.

    Attributes:
        trained: Path to value of every variable of the model at the end.
        metrics: Figures of the run; accuracies are fractions in [0, 1].
            `steps` and `seconds` always; `early_stop_step`, the step of
            minimum validation loss over the whole run, found afterwards
            (Frankle & Carbin 2019, App. C), and what was measured there where
            there is validation data.
        curve: One row for each evaluation, with its `step`.
        correct: `"validation"` and `"test"` to whether each example was
            classified right at the early-stop step, bool `[examples]`.
        slots: Name to value of every variable of the optimizer at the end, if
            they were to be kept.
        captured: The states at the steps that were to be captured, in order.
    """

    trained: Arrays
    metrics: Mapping[str, Any]
    curve: tuple[Row, ...]
    correct: Mapping[str, np.ndarray]
    slots: Arrays = dataclasses.field(default_factory=dict)
    captured: tuple[State, ...] = ()
