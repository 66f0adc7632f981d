"""This module knows what says how a network is trained."""

import dataclasses
from typing import Any

from tf_lottery.duration import Duration


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How every network of a run is trained.

    Attributes:
        optimizer: As `keras.Model.compile` takes it; its learning rate may be
            a schedule of the step. Never used itself, only its configuration.
        loss: As `keras.Model.compile` takes it.
        metrics: As `keras.Model.compile` takes them. A verdict needs
            `"accuracy"`.
        batch_size: Examples a step; what does not fill a batch at the end of
            an epoch is left out of that epoch.
        length: How long each network trains, counted from step 0.
        evaluate_every: Steps between evaluations (Frankle & Carbin 2019, G.1:
            100).
        test_curve: Whether test data is evaluated as often as validation
            data, for learning curves (the paper's Figure 3), and not only at
            the early-stop step and the end. It changes no other number, and
            costs an LeNet on MNIST a third of its speed.
    """

    optimizer: Any
    loss: Any
    metrics: tuple[Any, ...] = ("accuracy",)
    batch_size: int = 60
    length: Duration = Duration("50000it")
    evaluate_every: int = 100
    test_curve: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "evaluate_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a whole number of 1 or more; "
                    f"got {value!r}."
                )
