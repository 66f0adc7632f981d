"""A network that trains on its surviving weights only, on one CPU thread."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery.data import Dataset, Split
from tf_lottery.training import input_pipeline
from tf_lottery.training.backends import sparse_cpu
from tf_lottery.training.backends.sparse_cpu import SparseTraining
from tf_lottery.training.input_pipeline import Batch, Buffer
from tf_lottery.training.objective import LOSS, EvalResult, Objective
from tf_lottery.training.recipe import Recipe
from tf_lottery.training.state import State

BREAK_EVEN = 0.35
"""Density below which one sparse thread is faster than the dense program.

Measured by `benchmarks/sparse_training.py`.
"""


def unsupported_reason(
    model: keras.Model,
    recipe: Recipe,
    objective: Objective,
    data: Dataset,
    masks: Mapping[str, np.ndarray],
) -> str | None:
    """Returns why networks cannot train on their survivors alone, or None.

    Args:
        model: A built Keras model.
        recipe: Loss, optimizer and metrics of training.
        objective: The compiled loss and metrics.
        data: Examples for training, validation and test.
        masks: Kernel path to bool array of the kernel's shape.
    """
    for metric in objective.compiled_metrics.values():
        if type(metric) is not keras.metrics.SparseCategoricalAccuracy:
            return f"metric {metric.name!r} needs the dense outputs"
    if recipe.loss is None or keras.tree.is_nested(recipe.loss):
        return "it has no loss, or several"
    if recipe.loss_weights is not None:
        return "its loss has a weight"
    if reason := _unsupported_data(data):
        return reason
    kept = sum(int(mask.sum()) for mask in masks.values())
    size = sum(mask.size for mask in masks.values())
    if not size or kept / size > BREAK_EVEN:
        return f"more than {100 * BREAK_EVEN:.0f} % of the weights are left"
    optimizer = keras.optimizers.get(recipe.optimizer)
    return sparse_cpu.unsupported_reason(model, recipe.loss, optimizer, masks)


def _unsupported_data(data: Dataset) -> str | None:
    if data.augment is not None:
        return "its inputs are augmented"
    if input_pipeline.streams(data.train):
        return "its data are streamed, so inputs that are always 0 are unknown"
    for split in (data.train, data.validation, data.test):
        if split is None:
            continue
        if split.sample_weight is not None:
            return "examples have weights"
        if not all(isinstance(a, np.ndarray) for a in (split.x, split.y)):
            return "it has several inputs or outputs"
        if split.x.dtype != np.float32:
            return f"inputs are {split.x.dtype}, not float32"
        if not split.x.flags.c_contiguous:
            return "inputs are not C-contiguous"
        if split.y.dtype.kind not in "iu" or split.y.shape[1:] not in (
            (),
            (1,),
        ):
            return "targets are not one label per example"
    return None


class SparseBackend:
    """Trains one network without storing its pruned weights.

    Args:
        model: The built Keras model.
        optimizer: Its optimizer; only settings are read.
        objective: Its loss and metrics.
        state: Start of the network.
        masks: Kernel path to bool array of the kernel's shape.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        objective: Objective,
        state: State,
        masks: Mapping[str, np.ndarray],
    ) -> None:
        self._build = lambda state: SparseTraining(
            model, masks, optimizer, state.weights, state.slots
        )
        self._objective = objective
        self._paths = tuple(state.weights)
        self.device_state: Any = self._build(state)
        self.set_metric_totals(None)

    def run(self, buffer: Buffer, start: int, stop: int) -> np.ndarray:
        """Takes steps; returns the sum of losses since the reset, `[1]`."""
        (order,) = buffer.orders
        rows = order[start:stop]
        loss = self.device_state.run(*_arrays(buffer.split), rows)
        self._count(loss * rows.size, self.device_state.right, rows.size)
        return self._totals[0][None]

    def metric_totals(self) -> list[list[np.ndarray]]:
        """Returns the values of Keras' metrics variables."""
        return [[np.array(total) for total in self._totals]]

    def set_metric_totals(self, totals: Sequence[Sequence[Any]] | None) -> None:
        """Sets what `metric_totals` returned earlier; None resets metrics."""
        (counts,) = totals or [self._zeros()]
        self._totals = np.array(counts, np.float64)

    def training_metrics(self) -> list[dict[str, Any]]:
        """Returns the metrics of the steps since the last reset."""
        return [self._results(self._totals)]

    def evaluate(
        self,
        device_state: Any,
        batches: Iterable[Batch],
        per_example: bool = False,
    ) -> list[EvalResult]:
        """Returns the network's loss and metrics on a split."""
        pairs = [
            device_state.evaluate(*_arrays(batch.split)) for batch in batches
        ]
        losses, right = (
            np.concatenate(each) for each in zip(*pairs, strict=True)
        )
        counts = self._counts(
            losses.sum(dtype=np.float64), right.sum(), len(right)
        )
        deciding = None
        if per_example:
            has_accuracy = bool(self._objective.compiled_metrics)
            deciding = right if has_accuracy else losses
        return [EvalResult(self._results(counts), deciding)]

    def keep_best(self, improved: Sequence[bool], best: Any) -> Any:
        """Returns a copy of the network; the loop asks only if it improved."""
        del improved, best
        return self.device_state.copy()

    def unpack_states(self, device_state: Any, step: int) -> list[State]:
        """Returns the network as one `State`."""
        weights, slots = device_state.state()
        weights = {path: weights[path] for path in self._paths}
        return [State(step, weights, slots if step else {})]

    def pack_states(self, states: Sequence[State]) -> Any:
        """Returns a network of one `State`."""
        (state,) = states
        return self._build(state)

    def _zeros(self) -> list[float]:
        return [0.0] * len(self._objective.variables)

    def _count(self, loss: float, right: int, examples: int) -> None:
        self._totals += self._counts(loss, right, examples)

    def _counts(self, loss: float, right: int, examples: int) -> np.ndarray:
        """Returns sum and count of the loss, then of each accuracy."""
        accuracies = len(self._objective.compiled_metrics)
        return np.array([loss, examples, *[right, examples] * accuracies])

    def _results(self, totals: np.ndarray) -> dict[str, Any]:
        """Returns metrics by name, divided in float32 as Keras does."""
        sums, counts = totals.astype(np.float32).reshape(-1, 2).T
        names = LOSS, *self._objective.compiled_metrics
        means = sums / np.maximum(counts, 1)
        return dict(zip(names, map(float, means), strict=True))


def _arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns views: inputs `[examples, inputs]` and labels `[examples]`."""
    return split.x.reshape(len(split), -1), split.y.reshape(-1)
