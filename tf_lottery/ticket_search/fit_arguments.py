"""Arguments of `fit` that say how networks train, and their defaults."""

from collections.abc import Mapping
from typing import Any

import keras

from tf_lottery import data
from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError
from tf_lottery.training import Recipe

BATCH_SIZE = 32  # as in keras.Model.fit


def require_from_scratch(initial_epoch: int, validation_freq: int) -> None:
    """Raises a UserError for arguments of Keras that a search cannot honor.

    Args:
        initial_epoch: The argument of `fit`; only 0 can be honored.
        validation_freq: The argument of `fit`; only 1 can be honored.
    """
    if initial_epoch:
        raise UserError(
            "`initial_epoch` must be 0: every network starts from its own "
            "weights. To go on with a search, give the same `run_dir` again."
        )
    if validation_freq != 1:
        raise UserError(
            "`validation_freq` must be 1: the early-stop step needs at least "
            "an evaluation an epoch. `evaluate_every` takes steps."
        )


def duration(
    epochs: int | None, length: str | Duration | None
) -> Duration | None:
    """Returns how long networks train; None if neither argument says so.

    Args:
        epochs: Number of epochs, >= 1, or None.
        length: A length such as `"500it"`, or None.

    Raises:
        UserError: Both are given, or one is not a length of training.
    """
    if epochs is None:
        return None if length is None else Duration(length)
    if length is not None:
        raise UserError(
            f"Give `epochs` or `length`, not both: epochs={epochs} is "
            f"length='{epochs}ep'."
        )
    if not isinstance(epochs, int) or epochs < 1:
        raise UserError(
            f"`epochs` must be a whole number of 1 or more; got {epochs!r}."
        )
    return Duration(f"{epochs}ep")


def default_length(steps_per_epoch: int) -> Duration:
    """Returns the length of training if `fit` is given none.

    It is enough epochs for 3,000 steps, but 10 to 100: a search trains many
    networks, and prints its cost before it starts.

    Args:
        steps_per_epoch: Batches in the training data, >= 1.
    """
    epochs = -(-3_000 // steps_per_epoch)
    return Duration(f"{min(max(epochs, 10), 100)}ep")


def default_metrics(loss: Any) -> list[Any]:
    """Returns accuracy for a classification loss, else no metric.

    Args:
        loss: The argument of `compile`: a name, function, object, or several
            of these, nested.
    """
    if loss is None or keras.tree.is_nested(loss):
        return []
    text = loss if isinstance(loss, str) else getattr(loss, "name", None)
    name = str(text or getattr(loss, "__name__", ""))
    if "crossentropy" not in name and name != "ce":
        return []
    if "binary" in name and getattr(loss, "from_logits", False) is True:
        return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    return ["accuracy"]


def build_recipe(
    compiled: Mapping[str, Any] | None,
    dataset: data.Dataset,
    batch_size: int,
    length: Duration | None,
    evaluate_every: int | None,
    replicas: int,
    **settings: Any,
) -> Recipe:
    """Returns how networks train.

    Args:
        compiled: Arguments of `compile`; None if it was not called.
        dataset: The examples.
        batch_size: Examples a step, >= 1.
        length: How long networks train; None: `default_length`.
        evaluate_every: Steps between evaluations, >= 1. None: an epoch, or
            100 if `length` is in steps.
        replicas: Replicas that share a batch, >= 1. Several cannot share the
            smaller batch at the end of an epoch, which is then left out.
        **settings: Other arguments of `Recipe`.

    Raises:
        UserError: `compile` was not called, or the batch size is wrong.
    """
    if compiled is None:
        raise UserError("Call compile(optimizer=..., loss=...) before fit.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(
            "`batch_size` must be a whole number of 1 or more; got "
            f"{batch_size!r}."
        )
    keeps_remainder = replicas == 1
    steps, remainder = divmod(len(dataset.train), batch_size)
    steps_per_epoch = max(steps + bool(keeps_remainder and remainder), 1)
    if length is None:
        length = default_length(steps_per_epoch)
    if evaluate_every is None:
        is_in_steps = length.steps and not length.epochs
        evaluate_every = 100 if is_in_steps else steps_per_epoch
    return Recipe(
        **compiled,
        batch_size=batch_size,
        length=length,
        evaluate_every=evaluate_every,
        keeps_remainder=keeps_remainder,
        **settings,
    )
