"""Keras callbacks in a search: what they see, and what they may not change."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.core.errors import UserError, UserTypeError

Arrays = Mapping[str, np.ndarray]

_REFUSED: dict[type[keras.callbacks.Callback], str] = {
    keras.callbacks.EarlyStopping: "every network trains its whole length, so "
    "that tickets and controls compare, and is judged and kept as it was at "
    "its lowest validation loss. Leave it out; to train less, lower `epochs`",
    keras.callbacks.ReduceLROnPlateau: "every network must train by the same "
    "rates. Give the optimizer a keras.optimizers.schedules.LearningRate"
    "Schedule, which starts again with every network",
    keras.callbacks.LearningRateScheduler: "it would be called once a level. "
    "Give the optimizer a keras.optimizers.schedules.LearningRateSchedule, "
    "which starts again with every network",
    keras.callbacks.BackupAndRestore: "a search resumes by itself. Give "
    "fit(..., run_dir=...), and call it again",
    keras.callbacks.SwapEMAWeights: "the networks train on values of their "
    "own. Give the optimizer ema_overwrite_frequency",
}
"""Callbacks of Keras that cannot do what they are for, and the way instead."""


def require_supported(
    callbacks: Sequence[keras.callbacks.Callback], logged: Iterable[str]
) -> None:
    """Raises, before anything trains, for callbacks that cannot work.

    Args:
        callbacks: Those that `fit` was given.
        logged: The names in the logs that they will see.

    Raises:
        TypeError: One is no Keras callback.
        ValueError: One would change how networks train, or looks at a metric
            that is not logged. The message names it, and the way instead.
    """
    names = set(logged)
    for callback in callbacks:
        cls = type(callback)
        if not isinstance(callback, keras.callbacks.Callback):
            raise UserTypeError(
                "`callbacks` must hold keras.callbacks.Callback objects; got "
                f"{cls.__module__}.{cls.__qualname__}."
            )
        for refused, reason in _REFUSED.items():
            if isinstance(callback, refused):
                raise UserError(
                    f"{cls.__qualname__} cannot work in a search: {reason}."
                )
        monitor = getattr(callback, "monitor", None)
        looks = getattr(callback, "save_best_only", True)
        if isinstance(monitor, str) and looks and monitor not in names:
            raise UserError(
                f"{cls.__qualname__} monitors {monitor!r}, which is not "
                f"logged. Logged are: {', '.join(sorted(names))}."
            )


class CallbackBridge:
    """Runs Keras callbacks over the levels of a search.

    To them a level is an epoch, and an evaluation the end of a batch. Their
    `model` is a plain copy of the network in question: during training as it
    is, at the end of a level as it is judged. What they change in it changes
    nothing in the search, so that a change is an error that names who made
    it; but `stop_training`, set at the end of a level, ends the search there.

    Of several replicates callbacks see the first, number 0, alone.

    Args:
        callbacks: The callbacks.
        model: The model that is searched; it stays as it is.
        compiled: What `keras.Model.compile` takes, for the copy.
        params: What callbacks know as their `params`: `"epochs"`, here the
            levels, and `"steps"`, the evaluations in each.
        sample: A few examples, inputs, targets and weights, by which Keras
            resolves the copy's metrics.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        model: keras.Model,
        compiled: Mapping[str, Any],
        params: Mapping[str, Any],
        sample: tuple[Any, Any, Any],
    ) -> None:
        self._callbacks = list(callbacks)
        if not callbacks:
            return
        self._model = masking.clone_model(model)
        self._model.compile(**compiled)
        # Files of an optimizer that is not built load with a warning.
        self._model.optimizer.build(self._model.trainable_variables)
        self._model.test_on_batch(*sample)
        self._model.reset_metrics()
        self._model.stop_training = False
        self._variables = masking.variables_by_path(self._model)
        for callback in self._callbacks:
            callback.set_model(self._model)
            callback.set_params(dict(params))

    @property
    def sees_training(self) -> bool:
        """Whether a callback looks at networks while they train."""
        base = keras.callbacks.Callback
        return any(
            hook in vars(callback)
            or getattr(type(callback), hook) is not getattr(base, hook)
            for callback in self._callbacks
            for hook in ("on_train_batch_end", "on_batch_end")
        )

    def train_begin(self) -> None:
        """Says that the search begins."""
        self._call("on_train_begin", {})

    def train_end(self) -> None:
        """Says that the search has ended."""
        self._call("on_train_end", {})

    def level_begin(self, level: int) -> None:
        """Says that the training of a level's network begins."""
        self._call("on_epoch_begin", level, {})

    def evaluated(
        self, step: int, weights: Arrays, logs: Mapping[str, Any]
    ) -> None:
        """Says what a network in training came to.

        Args:
            step: At which step.
            weights: Path to value of its variables.
            logs: What was measured.
        """
        self._show(weights)
        self._call("on_train_batch_begin", step, {})
        self._call("on_train_batch_end", step, dict(logs))
        if self._callbacks and self._model.stop_training:
            raise UserError(
                "A callback set model.stop_training within a level. Every "
                "network trains its whole length, so that tickets and controls "
                "compare: set it at the end of a level (on_epoch_end), which "
                "ends the search there, or lower `epochs`."
            )

    def level_end(
        self, level: int, weights: Arrays, logs: Mapping[str, Any]
    ) -> bool:
        """Says what a level came to.

        Args:
            level: The level.
            weights: Path to value of the variables of its network.
            logs: What was measured.

        Returns:
            Whether the search goes on.
        """
        self._show(weights)
        self._call("on_epoch_end", level, dict(logs))
        return not (self._callbacks and self._model.stop_training)

    def _show(self, weights: Arrays) -> None:
        if not self._callbacks:
            return
        for path, variable in self._variables.items():
            variable.assign(weights[path])

    def _call(self, hook: str, *given: Any) -> None:
        for callback in self._callbacks:
            if _only_looks(callback):
                getattr(callback, hook)(*given)
                continue
            before = self._values()
            getattr(callback, hook)(*given)
            self._require_unchanged(callback, hook, before)

    def _values(self) -> list[np.ndarray]:
        rate = np.array(self._model.optimizer.learning_rate)
        return [rate, *(v.numpy() for v in self._variables.values())]

    def _require_unchanged(
        self,
        callback: keras.callbacks.Callback,
        hook: str,
        before: Sequence[np.ndarray],
    ) -> None:
        after = self._values()
        changed = [
            "learning rate",
            *(f"weights {p!r}" for p in self._variables),
        ]
        for name, old, new in zip(changed, before, after, strict=True):
            if not np.array_equal(old, new):
                raise UserError(
                    f"{type(callback).__qualname__}.{hook} changed the {name} "
                    "of a network in a search, which trains on values of its "
                    "own and would lose the change. Give the optimizer a "
                    "learning-rate schedule, a weight a constraint, or train "
                    "tickets by hand: ticket.build().fit(...)."
                )


def _only_looks(callback: keras.callbacks.Callback) -> bool:
    """Returns whether it is one of Keras' own that changes nothing."""
    is_lambda = isinstance(callback, keras.callbacks.LambdaCallback)
    return type(callback).__module__.startswith("keras.src.") and not is_lambda
