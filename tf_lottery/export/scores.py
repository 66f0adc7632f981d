"""How good the outputs of an exported file are, as Keras computes it."""

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
"""As `comparison.compare` takes it."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Targets, and the metric that says how well they are met.

    Attributes:
        names: The names of the outputs.
        y: The targets, in the structure of the outputs.
        metric: What decides.
    """

    names: Sequence[str]
    y: Any
    metric: Metric = None

    def scores(self, outputs: Sequence[np.ndarray]) -> dict[str, float]:
        """Returns the metrics' values by the names that Keras gives them."""
        symbols = {
            name: keras.Input(output.shape[1:], dtype=output.dtype, name=name)
            for name, output in zip(self.names, outputs, strict=True)
        }
        # The outputs themselves as a model, to have Keras compute its metrics.
        model = keras.Model(symbols, symbols)
        model.compile(metrics={n: [self._metric(n)] for n in self.names})
        model.reset_metrics()
        predicted = dict(zip(self.names, outputs, strict=True))
        found = model.compute_metrics(None, self._targets(), predicted)
        one = f"{self.names[0]}_" if len(self.names) == 1 else ""
        return {
            name.removeprefix(one): float(value)
            for name, value in found.items()
            if name != "loss"
        }

    def agreement(
        self, outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray]
    ) -> float | None:
        """Returns the share of decisions that are those of the reference.

        None: no output is a class.
        """
        same = []
        for name, found, wanted in zip(
            self.names, outputs, reference, strict=True
        ):
            metric = self._metric(name)
            if _decides(metric):
                ours, theirs = (
                    _decisions(found, metric),
                    _decisions(wanted, metric),
                )
                same.append((ours == theirs).mean())
        return float(np.mean(same)) if same else None

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
        whole = self._targets()[name].dtype.kind in "iub"
        return "accuracy" if whole else "mean_squared_error"


def difference(
    outputs: Sequence[np.ndarray], reference: Sequence[np.ndarray]
) -> float:
    """Returns how far outputs lie apart at most."""
    return max(
        float(np.abs(np.asarray(a, "float64") - np.asarray(b, "float64")).max())
        for a, b in zip(outputs, reference, strict=True)
    )


def _decides(metric: Any) -> bool:
    name = metric if isinstance(metric, str) else type(metric).__name__
    return name.lower().endswith(("accuracy", "acc"))


def _decisions(outputs: np.ndarray, metric: Any) -> np.ndarray:
    """Returns the classes that outputs stand for, as the metric reads them."""
    binary = (
        "binary"
        in str(
            metric if isinstance(metric, str) else type(metric).__name__
        ).lower()
    )
    if binary or outputs.shape[-1] == 1:
        return outputs > getattr(metric, "threshold", 0.5)
    return outputs.argmax(axis=-1)
