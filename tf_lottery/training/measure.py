"""This module knows how a network's outputs are measured."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

_ACCURACIES = (
    keras.metrics.Accuracy,
    keras.metrics.BinaryAccuracy,
    keras.metrics.CategoricalAccuracy,
    keras.metrics.SparseCategoricalAccuracy,
)


@dataclasses.dataclass(frozen=True)
class Measures:
    """What is measured when a network is evaluated.

    Attributes:
        losses: From targets and outputs to the loss of each example.
        correct: From targets and outputs to whether each example was
            classified right; all false where accuracy was not asked for.
        has_accuracy: Whether accuracy was asked for.
        metrics: The other Keras metrics.
    """

    losses: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    correct: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    has_accuracy: bool
    metrics: tuple[keras.metrics.Metric, ...]

    def zeros(self) -> list[list[tf.Tensor]]:
        """Returns the state of each metric before any example."""
        return [
            [tf.convert_to_tensor(v) for v in metric.stateless_reset_state()]
            for metric in self.metrics
        ]

    def counted(
        self,
        totals: Sequence[Sequence[tf.Tensor]],
        y: tf.Tensor,
        outputs: tf.Tensor,
        counts: tf.Tensor,
    ) -> list[Any]:
        """Returns the state of each metric after a batch.

        Args:
            totals: The state of each before it.
            y: Targets.
            outputs: Outputs.
            counts: Each example's weight, float32 `[examples]`.
        """
        return [
            metric.stateless_update_state(
                list(total), y, outputs, sample_weight=counts
            )
            for metric, total in zip(self.metrics, totals, strict=True)
        ]

    def figures(
        self,
        losses: np.ndarray,
        right: np.ndarray,
        totals: Sequence[Sequence[tf.Tensor]] = (),
    ) -> "Figures":
        """Returns the figures of a split.

        Args:
            losses: Of every example, float32.
            right: Whether each was classified right, bool.
            totals: The state of each metric after all of them.
        """
        figures = {"loss": float(losses.mean(dtype=np.float64))}
        if self.has_accuracy:
            figures["accuracy"] = float(right.mean())
        for metric, total in zip(self.metrics, totals, strict=True):
            figures[metric.name] = float(metric.stateless_result(list(total)))
        return Figures(figures, right)


class Figures(NamedTuple):
    """What a network comes to on a split.

    Attributes:
        figures: Name to value: `"loss"`, `"accuracy"`, …
        correct: Whether each example was classified right, bool `[examples]`.
    """

    figures: Mapping[str, float]
    correct: np.ndarray


def resolve_loss(loss: Any) -> keras.losses.Loss:
    """Returns the loss object of what `keras.Model.compile` would take.

    Raises:
        ValueError: It is None, or no loss of that name exists.
    """
    if loss is None:
        raise ValueError(
            "A loss is needed: compile(optimizer=..., loss=...). For integer "
            "labels and logits: "
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
        )
    found = keras.losses.get(loss)
    if isinstance(found, keras.losses.Loss):
        return found

    class FunctionLoss(keras.losses.Loss):
        """A loss function of targets and outputs, as an object."""

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return found(_shaped_as(y_pred, y_true), y_pred)

    return FunctionLoss()


def resolve(
    loss: keras.losses.Loss | None, metrics: tuple[Any, ...]
) -> Measures:
    """Returns the measures that `compile` asked for; no loss counts as 0."""
    has_accuracy, others = False, []
    for metric in metrics:
        if metric in ("accuracy", "acc") or isinstance(metric, _ACCURACIES):
            has_accuracy = True
        else:
            others.append(_metric(metric))

    def losses(y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        if loss is None:
            return tf.zeros(tf.shape(y)[:1])
        return _per_example(loss.call(y, outputs))

    def correct(y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        if not has_accuracy:
            return tf.zeros(tf.shape(outputs)[:1], tf.bool)
        return _per_example(_matches(y, outputs)) > 0.5

    return Measures(losses, correct, has_accuracy, tuple(others))


def _metric(metric: Any) -> keras.metrics.Metric:
    if isinstance(metric, keras.metrics.Metric):
        return metric
    found = keras.metrics.get(metric)
    if isinstance(found, keras.metrics.Metric):
        return found
    return keras.metrics.MeanMetricWrapper(
        found, name=getattr(found, "__name__", str(metric))
    )


def _matches(y: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Resolves `"accuracy"` by shapes, as `keras.Model.compile` does."""
    y = _shaped_as(outputs, y)
    if outputs.shape[-1] == 1 or outputs.shape.rank == 1:
        return keras.metrics.binary_accuracy(y, outputs)
    if y.shape.rank == outputs.shape.rank:
        return keras.metrics.categorical_accuracy(y, outputs)
    return keras.metrics.sparse_categorical_accuracy(y, outputs)


def _shaped_as(outputs: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Gives targets the last axis of a single output, as Keras' losses do."""
    single = outputs.shape[-1] == 1 and y.shape.rank == outputs.shape.rank - 1
    return y[..., None] if single else y


def _per_example(values: tf.Tensor) -> tf.Tensor:
    values = tf.cast(values, tf.float32)
    flat = tf.reshape(values, [tf.shape(values)[0], -1])
    return tf.reduce_mean(flat, axis=1)
