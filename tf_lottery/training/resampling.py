"""A Keras metric of a network, and its standard error by bootstrap."""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.data import Split, nested
from tf_lottery.training import input_pipeline, objective
from tf_lottery.training.objective import LOSS, Objective
from tf_lottery.training.recipe import Recipe

RESAMPLES = 400
"""Bootstrap samples; the standard error is then accurate to 4 %."""


class ResampledMetric:
    """One metric of a model's outputs on a split, as Keras computes it.

    Metrics need not be means over examples: AUC, F1 and IoU work too.

    Args:
        model: A built model.
        recipe: Loss and metrics of its training.
        split: The examples.
        metric: Name of a metric of `recipe`, `"loss"`, or a Keras metric, its
            name, or a function.

    Raises:
        UserError: There is no such metric, or Keras does not know whether
            higher is better.

    Attributes:
        name: Its name in the results of `keras.Model.evaluate`.
        sign: 1 if higher is better, -1 if lower is better.
    """

    def __init__(
        self, model: keras.Model, recipe: Recipe, split: Split, metric: Any
    ) -> None:
        sample = input_pipeline.examples_of(
            split.rows(slice(0, min(4, len(split))))
        )
        compiled = Objective(model, recipe, sample)
        names = [LOSS, *compiled.compiled_metrics]
        if isinstance(metric, str) and metric in names:
            self.name = metric
        else:
            metrics = [_get_metric(metric, names)]
            only = dataclasses.replace(
                recipe, metrics=metrics, weighted_metrics=None
            )
            compiled = Objective(model, only, sample)
            (self.name,) = compiled.compiled_metrics
        self.sign = -1
        if self.name != LOSS:
            self.sign = _direction(compiled.compiled_metrics[self.name], names)
        self._objective, self._split = compiled, split
        self._size = recipe.validation_batch_size or recipe.batch_size
        self._examples = input_pipeline.examples_of(split)
        self._compiled = tf.function(self._value, autograph=False)

    def outputs(self, model: keras.Model) -> Any:
        """Returns a model's outputs for the split, and their Keras masks.

        Args:
            model: A model with outputs of the same shapes.
        """
        parts = []
        for start in range(0, len(self._split), self._size):
            rows = slice(start, min(start + self._size, len(self._split)))
            examples = input_pipeline.examples_of(self._split.rows(rows))
            out = model(examples.x, **objective.mode(model, training=False))
            parts.append((out, nested.map_arrays(objective.mask_of, out)))
        return nested.map_arrays(lambda *each: tf.concat(each, 0), *parts)

    def value(self, outputs: Any, rows: np.ndarray | None = None) -> float:
        """Returns the metric on some examples.

        Args:
            outputs: What `self.outputs` returns.
            rows: Indices of examples, int `[rows]`; repeats are allowed.
                None: all examples.
        """
        if rows is None:
            rows = np.arange(len(self._split))
        value = self._compiled(outputs, tf.constant(rows, tf.int64)).numpy()
        if value.size != 1:
            raise UserError(
                f"Metric {self.name!r} has {value.size} values, but one number "
                "is needed: give it an average, such as average='macro'."
            )
        return float(value)

    def _value(self, outputs: Any, rows: tf.Tensor) -> tf.Tensor:
        def take(array: Any) -> tf.Tensor:
            return tf.gather(array, rows)

        out, masks = nested.map_arrays(take, outputs)
        objective.put_masks(out, masks)
        examples = input_pipeline.gather(self._examples, rows)
        with self._objective.scope(self._objective.zeros()) as scope:
            loss = self._objective.loss(examples, out, (), training=False)
            self._objective.count(examples, out, loss)
            totals = [
                scope.get_current_value(v) for v in self._objective.variables
            ]
        return self._objective.result(totals, self.name)

    def errors(
        self, outputs: Any, others: list[Any], seed: int = 0
    ) -> list[float]:
        """Returns standard errors of differences of the metric, by bootstrap.

        Args:
            outputs: Outputs of the reference model.
            others: Outputs of other models; each is compared with the
                reference on the same resampled examples.
            seed: Seed of the resampling, >= 0.

        Returns:
            One standard error per entry of `others`.
        """
        count, generator = len(self._split), np.random.default_rng(seed)
        differences = []
        for _ in range(RESAMPLES):
            rows = generator.integers(count, size=count)
            reference = self.value(outputs, rows)
            differences.append(
                [self.value(each, rows) - reference for each in others]
            )
        return np.std(differences, axis=0, ddof=1).tolist()


def _get_metric(metric: Any, names: list[str]) -> Any:
    try:
        return keras.metrics.get(metric)
    except (ValueError, TypeError):
        raise UserError(
            f"There is no metric {metric!r}: give one of {', '.join(names)}, "
            "or one that keras.metrics.get takes."
        ) from None


def _direction(metric: keras.metrics.Metric, names: list[str]) -> int:
    # Keras has no public name for it; its callbacks read it too.
    direction = getattr(metric, "_direction", None)
    if direction not in ("up", "down"):
        raise UserError(
            f"Keras does not know whether more or less of metric "
            f"{metric.name!r} is better, so networks cannot be compared by it. "
            f"Use another one, such as {names[0]!r}."
        )
    return 1 if direction == "up" else -1
