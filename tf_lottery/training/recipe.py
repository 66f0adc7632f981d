"""How the networks of a run are trained."""

import dataclasses
from typing import Any

from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How every network of a run is trained.

    Attributes:
        optimizer: A Keras optimizer, its name or configuration; its learning
            rate may be a schedule of the step. Only its configuration is used.
        loss: A Keras loss, its name, a function, or these nested as the
            model's outputs. None: `add_loss` of layers, or the model's class.
        metrics: List (or dict by output) of Keras metrics, names, functions.
        batch_size: Examples per step, >= 1.
        length: Duration of each training, counted from step 0.
        evaluate_every: Steps between evaluations (Frankle & Carbin 2019, G.1:
            100), >= 1; at most an epoch is used.
        test_curve: Whether test data is evaluated as often as validation
            data, for learning curves (the paper's Figure 3), and not only at
            the early-stop step and the end. It changes no other number, and
            costs an LeNet on MNIST a third of its speed.
        loss_weights: Weight of each output's loss, list or dict; None: 1.
        weighted_metrics: Like `metrics`, weighted by the sample weights.
        validation_batch_size: Examples per evaluation batch, where it affects
            loss or metrics. None: `batch_size`.
        shuffle: Whether each epoch is shuffled.
        keeps_remainder: Whether the last examples of an epoch, too few for a
            batch, form a smaller batch, as in Keras. If not, that epoch skips
            them.
        jit_compile: Whether XLA compiles training: `True`, `False`, or
            `"auto"` where it is faster.
        auto_scale_loss: Whether float16 training gets loss scaling.
    """

    optimizer: Any
    loss: Any
    metrics: Any = ("accuracy",)
    batch_size: int = 60
    length: Duration = Duration("50000it")
    evaluate_every: int = 100
    test_curve: bool = False
    loss_weights: Any = None
    weighted_metrics: Any = None
    validation_batch_size: int | None = None
    shuffle: bool = True
    keeps_remainder: bool = False
    jit_compile: bool | str = "auto"
    auto_scale_loss: bool = True

    def __post_init__(self) -> None:
        sizes = ["batch_size", "evaluate_every"]
        if self.validation_batch_size is not None:
            sizes.append("validation_batch_size")
        for name in sizes:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(
                    f"`{name}` must be a whole number of 1 or more; "
                    f"got {value!r}."
                )
        if self.jit_compile not in (True, False, "auto"):
            raise UserError(
                "`jit_compile` must be True, False or 'auto'; got "
                f"{self.jit_compile!r}."
            )
