"""Networks that train on their surviving weights alone."""

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
"""The density below which one thread on survivors outruns the dense loop.

`benchmarks/sparse_training.py` measures it.
"""


def unsupported_reason(
    model: keras.Model,
    recipe: Recipe,
    objective: Objective,
    data: Dataset,
    masks: Mapping[str, np.ndarray],
) -> str | None:
    """Returns why a network trains densely, or None if it need not."""
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
        return "its inputs are varied at random"
    if input_pipeline.streams(data.train):
        return "its data stream, and which inputs are always 0 is not known"
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
            return "inputs do not lie in memory one after the other"
        if split.y.dtype.kind not in "iu" or split.y.shape[1:] not in (
            (),
            (1,),
        ):
            return "targets are not one label an example"
    return None


class SparseBackend:
    """One network in training, whose pruned weights are not there at all.

    Args:
        model: What is trained.
        optimizer: Its optimizer.
        objective: What is minimised and measured.
        state: Where it starts.
        masks: Kernel path to bool array.
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
        self._others = state.weights
        self.values: Any = self._build(state)
        self.count_from(None)

    def run(self, window: Buffer, start: int, stop: int) -> np.ndarray:
        """Takes steps; returns the sum of losses so far, `[1]`."""
        (order,) = window.orders
        rows = order[start:stop]
        loss = self.values.run(*_arrays(window.split), rows)
        self._count(loss * rows.size, self.values.right, rows.size)
        return self._totals[0][None]

    def counted(self) -> list[list[np.ndarray]]:
        """Returns what the metrics counted so far."""
        return [[np.array(total) for total in self._totals]]

    def count_from(self, totals: Sequence[Sequence[Any]] | None) -> None:
        """Has metrics count on from earlier counts; None: from nothing."""
        (counts,) = totals or [self._zeros()]
        self._totals = np.array(counts, np.float64)

    def training_metrics(self) -> list[dict[str, Any]]:
        """Returns the metrics over the steps counted."""
        return [self._results(self._totals)]

    def evaluate(
        self, values: Any, batches: Iterable[Batch], per_example: bool = False
    ) -> list[EvalResult]:
        """Returns what the network comes to on a split."""
        pairs = [values.evaluate(*_arrays(batch.split)) for batch in batches]
        losses, right = (
            np.concatenate(each) for each in zip(*pairs, strict=True)
        )
        counts = self._counts(
            losses.sum(dtype=np.float64), right.sum(), len(right)
        )
        found = None
        if per_example:
            has_accuracy = bool(self._objective.compiled_metrics)
            found = right if has_accuracy else losses
        return [EvalResult(self._results(counts), found)]

    def keep_best(self, improved: Sequence[bool], before: Any) -> Any:
        """Returns the network as it is: asked for only if it improved."""
        del improved, before
        return self.values.copy()

    def states(self, values: Any, step: int) -> list[State]:
        """Returns the network as a state."""
        weights, slots = values.state()
        weights = {path: weights[path] for path in self._others}
        return [State(step, weights, slots if step else {})]

    def pack_states(self, states: Sequence[State]) -> Any:
        """Returns a state as a network."""
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
        """Returns what Keras' metrics make of sums and counts, in float32."""
        sums, counts = totals.astype(np.float32).reshape(-1, 2).T
        names = LOSS, *self._objective.compiled_metrics
        means = sums / np.maximum(counts, 1)
        return dict(zip(names, map(float, means), strict=True))


def _arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs `[examples, inputs]` and labels, where they lie."""
    return split.x.reshape(len(split), -1), split.y.reshape(-1)
