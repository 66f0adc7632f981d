"""Optimizer and learning-rate schedule of an experiment."""

from typing import Any

import keras

from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError
from tf_lottery.experiment.config import Config


def optimizer(
    config: Config, steps_per_epoch: int
) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a configuration.

    Args:
        config: The settings.
        steps_per_epoch: Whole batches in the training data.

    Raises:
        UserError: Settings are out of range or do not fit together.
    """
    rate = config.learning_rate
    if rate <= 0:
        raise UserError(f"`learning_rate` must be above 0; got {rate}.")
    try:
        default = keras.optimizers.get(config.optimizer)
    except ValueError:
        raise UserError(
            f"Unknown optimizer {config.optimizer!r}. Known: those of "
            "keras.optimizers, such as 'adam', 'sgd', 'adamw'."
        ) from None
    if config.momentum and not isinstance(default, keras.optimizers.SGD):
        raise UserError(
            f"`momentum` is for the optimizer 'sgd'; got {config.optimizer!r}."
        )
    settings: dict[str, Any] = {"learning_rate": rate}
    if config.momentum:
        settings["momentum"] = config.momentum
    warmup, *milestones = (
        Duration(length).steps_at(steps_per_epoch)
        for length in (config.warmup, *config.milestones)
    )
    if warmup or milestones:
        settings["learning_rate"] = Steps(rate, warmup, milestones)
    return type(default)(**settings)


@keras.saving.register_keras_serializable("tf_lottery")
class Steps(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warmup from 0, and a tenth of the rate after each milestone.

    The schedule of Frankle & Carbin 2019, Sec. 4 and App. I. It has no
    conditionals, so that it can be vectorized over stacked networks.

    Args:
        learning_rate: The rate between warmup and the first milestone.
        warmup: Steps of the warmup; at step s < `warmup` the rate is the
            fraction s / `warmup`.
        milestones: Steps, in rising order.
    """

    def __init__(
        self, learning_rate: float, warmup: int, milestones: list[int]
    ) -> None:
        if sorted(set(milestones)) != list(milestones):
            raise UserError(f"`milestones` must rise; got steps {milestones}.")
        self.learning_rate, self.warmup = learning_rate, warmup
        self.milestones = list(milestones)

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate at a step, a float32 scalar.

        Args:
            step: The step, an integer scalar >= 0.
        """
        step = keras.ops.cast(step, "float32")
        rate = keras.ops.convert_to_tensor(self.learning_rate, "float32")
        if self.warmup:
            rate = rate * keras.ops.minimum(step / float(self.warmup), 1.0)
        for milestone in self.milestones:
            passed = keras.ops.cast(step >= float(milestone), "float32")
            rate = rate * (1.0 - 0.9 * passed)
        return rate

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            "learning_rate": self.learning_rate,
            "warmup": self.warmup,
            "milestones": self.milestones,
        }
