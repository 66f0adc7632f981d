"""Metrics of the outputs of an exported file, computed by Keras."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

Metric: TypeAlias = (
    str
    | keras.metrics.Metric
    | keras.losses.Loss
    | Callable[..., Any]
    | Mapping[str, Any]
    | None
)
"""A metric of `keras.Model.compile`, a dict of them by output name, or None."""


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Test targets, and the metric that compares outputs with them.

    Attributes:
        names: The names of the outputs.
        y: The targets, in the structure of the outputs.
        metric: The deciding metric; None for `"accuracy"` if targets are
            whole numbers, and `"mean_squared_error"` otherwise.
    """

    names: Sequence[str]
    y: Any
    metric: Metric = None

    def scores(self, outputs: Sequence[np.ndarray]) -> dict[str, float]:
        """Returns the metrics of outputs, by the names that Keras gives them.

        Args:
            outputs: One array for each name, `[examples, ...]`.
        """
        symbols = {
            name: keras.Input(output.shape[1:], dtype=output.dtype, name=name)
            for name, output in zip(self.names, outputs, strict=True)
        }
        # An identity model, so that Keras computes the metrics.
        model = keras.Model(symbols, symbols)
        model.compile(metrics={n: [self._metric(n)] for n in self.names})
        model.reset_metrics()
        predicted = dict(zip(self.names, outputs, strict=True))
        metrics = model.compute_metrics(None, self._targets(), predicted)
        prefix = f"{self.names[0]}_" if len(self.names) == 1 else ""
        return {
            name.removeprefix(prefix): float(value)
            for name, value in metrics.items()
            if name != "loss"
        }

    def agreement(
        self, outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray]
    ) -> float | None:
        """Returns the fraction of predicted classes that equal the reference's.

        Args:
            outputs: One array for each name, `[examples, ...]`.
            reference: Outputs of the reference, of equal shapes.

        Returns:
            A fraction in [0, 1]; None if no output is a class.
        """
        equal = []
        for name, output, expected in zip(
            self.names, outputs, reference, strict=True
        ):
            metric = _metric_name(self._metric(name))
            if metric.endswith(("accuracy", "acc")):
                threshold = getattr(self._metric(name), "threshold", 0.5)
                binary = "binary" in metric or output.shape[-1] == 1
                classes, expected_classes = (
                    array > threshold if binary else array.argmax(axis=-1)
                    for array in (output, expected)
                )
                equal.append((classes == expected_classes).mean())
        return float(np.mean(equal)) if equal else None

    def _targets(self) -> dict[str, np.ndarray]:
        if isinstance(self.y, Mapping) and set(self.y) == set(self.names):
            return {name: np.asarray(self.y[name]) for name in self.names}
        leaves = map(np.asarray, keras.tree.flatten(self.y))
        return dict(zip(self.names, leaves, strict=True))

    def _metric(self, name: str) -> Any:
        metric = self.metric
        if isinstance(metric, Mapping):
            metric = metric.get(name)
        if metric is not None:
            return metric
        is_class = self._targets()[name].dtype.kind in "iub"
        return "accuracy" if is_class else "mean_squared_error"


def max_difference(
    outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray]
) -> float:
    """Returns the largest absolute difference between two lists of arrays.

    Args:
        outputs: Arrays of numbers.
        reference: Arrays of the same shapes.
    """
    return max(
        float(np.abs(np.asarray(a, "float64") - np.asarray(b, "float64")).max())
        for a, b in zip(outputs, reference, strict=True)
    )


def _metric_name(metric: Any) -> str:
    name = metric if isinstance(metric, str) else type(metric).__name__
    return name.lower()
