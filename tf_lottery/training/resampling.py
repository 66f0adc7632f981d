"""A Keras metric of a network on examples, and its error by bootstrap."""

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
"""Bootstrap samples of the examples: the standard error is known to 4 %."""


class ResampledMetric:
    """One metric of a model's outputs on a split, as Keras computes it.

    It serves metrics that are no mean over examples too: AUC, F1, IoU.

    Args:
        model: A built model.
        recipe: Loss and metrics of its training.
        split: The examples.
        metric: Name of a metric that `recipe` has, `"loss"`, or whatever
            `keras.metrics.get` takes.

    Raises:
        ValueError: There is no such metric, or Keras knows no direction of
            it.

    Attributes:
        name: Its name, as `keras.Model.evaluate` names it.
        sign: 1 if higher is better, -1 if lower is.
    """

    def __init__(
        self, model: keras.Model, recipe: Recipe, split: Split, metric: Any
    ) -> None:
        sample = input_pipeline.examples_of(
            split.rows(slice(0, min(4, len(split))))
        )
        built = Objective(model, recipe, sample)
        names = [LOSS, *built.compiled_metrics]
        if isinstance(metric, str) and metric in names:
            self.name = metric
        else:
            found = _found(metric, names)
            more = dataclasses.replace(
                recipe, metrics=[found], weighted_metrics=None
            )
            built = Objective(model, more, sample)
            (self.name,) = built.compiled_metrics
        self.sign = -1
        if self.name != LOSS:
            self.sign = _direction(built.compiled_metrics[self.name], names)
        self._objective, self._split = built, split
        self._size = recipe.validation_batch_size or recipe.batch_size
        self._examples = input_pipeline.examples_of(split)
        self._compiled = tf.function(self._value, autograph=False)

    def outputs(self, model: keras.Model) -> Any:
        """Returns a model's outputs for the split, and Keras' masks of them.

        Args:
            model: A model of the same outputs.
        """
        parts = []
        for start in range(0, len(self._split), self._size):
            rows = slice(start, min(start + self._size, len(self._split)))
            examples = input_pipeline.examples_of(self._split.rows(rows))
            out = model(examples.x, **objective.mode(model, training=False))
            parts.append((out, nested.map_arrays(objective.mask_of, out)))
        return nested.map_arrays(lambda *each: tf.concat(each, 0), *parts)

    def value(self, outputs: Any, rows: np.ndarray | None = None) -> float:
        """Returns the metric of some examples.

        Args:
            outputs: As `outputs` returns.
            rows: Which examples, int `[rows]`; an example may be there more
                than once. None: all.
        """
        if rows is None:
            rows = np.arange(len(self._split))
        found = self._compiled(outputs, tf.constant(rows, tf.int64)).numpy()
        if found.size != 1:
            raise UserError(
                f"Metric {self.name!r} has {found.size} values, and one has to "
                "decide: give it an average, such as average='macro'."
            )
        return float(found)

    def _value(self, outputs: Any, rows: tf.Tensor) -> tf.Tensor:
        def taken(array: Any) -> tf.Tensor:
            return tf.gather(array, rows)

        out, masks = nested.map_arrays(taken, outputs)
        objective.put_masks(out, masks)
        some = input_pipeline.Examples(
            *nested.map_arrays(taken, tuple(self._examples))
        )
        with self._objective.scope(self._objective.zeros()) as scope:
            loss = self._objective.loss(some, out, (), training=False)
            self._objective.count(some, out, loss)
            totals = [
                scope.get_current_value(v) for v in self._objective.variables
            ]
        return self._objective.result(totals, self.name)

    def errors(
        self, outputs: Any, others: list[Any], seed: int = 0
    ) -> list[float]:
        """Returns standard errors of differences of the metric, by bootstrap.

        Args:
            outputs: Of one model.
            others: Of others; the difference of each to the one is taken on
                the same examples.
            seed: Seed of the draws.
        """
        count, draw = len(self._split), np.random.default_rng(seed)
        found = []
        for _ in range(RESAMPLES):
            rows = draw.integers(count, size=count)
            first = self.value(outputs, rows)
            found.append([self.value(each, rows) - first for each in others])
        return np.std(found, axis=0, ddof=1).tolist()


def _found(metric: Any, names: list[str]) -> Any:
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
            f"{metric.name!r} is better, so nothing can be decided by it. Give "
            f"another one, such as {names[0]!r}."
        )
    return 1 if direction == "up" else -1
