"""Keras callbacks in a search: calls to them, and checks of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery import masking
from tf_lottery.core.errors import UserError, UserTypeError

Arrays = Mapping[str, np.ndarray]

_REFUSED: dict[type[keras.callbacks.Callback], str] = {
    keras.callbacks.EarlyStopping: "every network trains its whole length, so "
    "that tickets and controls compare, and its weights at the lowest "
    "validation loss are kept and judged. Leave it out; to train less, lower "
    "`epochs`",
    keras.callbacks.ReduceLROnPlateau: "every network must train with the same "
    "rates. Give the optimizer a keras.optimizers.schedules.LearningRate"
    "Schedule, which starts again with every network",
    keras.callbacks.LearningRateScheduler: "it would be called once a level. "
    "Give the optimizer a keras.optimizers.schedules.LearningRateSchedule, "
    "which starts again with every network",
    keras.callbacks.BackupAndRestore: "a search resumes by itself. Call "
    "fit(..., run_dir=...) again",
    keras.callbacks.SwapEMAWeights: "the weights that train are not variables "
    "of the model. Give the optimizer ema_overwrite_frequency",
}
"""Keras callbacks that cannot work in a search, with reason and alternative."""


def require_supported(
    callbacks: Sequence[keras.callbacks.Callback], logged: Iterable[str]
) -> None:
    """Raises, before anything trains, for callbacks that cannot work.

    Args:
        callbacks: The callbacks of `fit`.
        logged: Names in the logs that callbacks receive.

    Raises:
        UserTypeError: One is not a Keras callback.
        UserError: One would change how networks train, or monitors a metric
            that is not logged. The message names an alternative.
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
        is_used = getattr(callback, "save_best_only", True)
        if isinstance(monitor, str) and is_used and monitor not in names:
            raise UserError(
                f"{cls.__qualname__} monitors {monitor!r}, which is not "
                f"logged. Logged are: {', '.join(sorted(names))}."
            )


class CallbackBridge:
    """Calls Keras callbacks for the levels of a search.

    A level is an epoch to them, and an evaluation the end of a batch. Their
    `model` is a plain copy of the network: with its current weights during
    training, with its judged weights at the end of a level. A change to that
    copy would be lost, so it raises an error that names the callback. Only
    `stop_training` has an effect: at the end of a level it ends the search.

    Args:
        callbacks: The callbacks.
        model: The model that is searched; it stays as it is.
        compiled: Arguments of `keras.Model.compile`, for the copy.
        params: The `params` of the callbacks: `"epochs"`, the number of
            levels, and `"steps"`, the evaluations in each.
        sample: A few examples: inputs, targets and weights, from which Keras
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
        """Whether a callback observes networks while they train."""
        base = keras.callbacks.Callback
        return any(
            hook in vars(callback)
            or getattr(type(callback), hook) is not getattr(base, hook)
            for callback in self._callbacks
            for hook in ("on_train_batch_end", "on_batch_end")
        )

    def train_begin(self) -> None:
        """Calls `on_train_begin` at the start of the search."""
        self._call("on_train_begin", {})

    def train_end(self) -> None:
        """Calls `on_train_end` at the end of the search."""
        self._call("on_train_end", {})

    def level_begin(self, level: int) -> None:
        """Calls `on_epoch_begin` before the network of a level trains.

        Args:
            level: The level, >= 0.
        """
        self._call("on_epoch_begin", level, {})

    def evaluated(
        self, step: int, weights: Arrays, logs: Mapping[str, Any]
    ) -> None:
        """Calls `on_train_batch_end` with an evaluation during training.

        Args:
            step: The training step.
            weights: Path to value of the network's variables.
            logs: Loss and metrics, by Keras' names.

        Raises:
            UserError: A callback changed the network or stopped training.
        """
        self._assign(weights)
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
        """Calls `on_epoch_end` with the trained network of a level.

        Args:
            level: The level, >= 0.
            weights: Path to value of the network's variables.
            logs: Density, dead units, loss and metrics, by Keras' names.

        Returns:
            Whether the search goes on.
        """
        self._assign(weights)
        self._call("on_epoch_end", level, dict(logs))
        return not (self._callbacks and self._model.stop_training)

    def _assign(self, weights: Arrays) -> None:
        if not self._callbacks:
            return
        for path, variable in self._variables.items():
            variable.assign(weights[path])

    def _call(self, hook: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            if _changes_nothing(callback):
                getattr(callback, hook)(*arguments)
                continue
            before = self._values()
            getattr(callback, hook)(*arguments)
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
        names = ["learning rate", *(f"weights {p!r}" for p in self._variables)]
        for name, old, new in zip(names, before, after, strict=True):
            if not np.array_equal(old, new):
                raise UserError(
                    f"{type(callback).__qualname__}.{hook} changed the {name} "
                    "of a network in a search. It sees a copy, so the change "
                    "would be lost. Give the optimizer a learning-rate "
                    "schedule, a weight a constraint, or train tickets by "
                    "hand: ticket.build().fit(...)."
                )


def _changes_nothing(callback: keras.callbacks.Callback) -> bool:
    """Returns whether a callback is part of Keras and only observes."""
    is_lambda = isinstance(callback, keras.callbacks.LambdaCallback)
    return type(callback).__module__.startswith("keras.src.") and not is_lambda
