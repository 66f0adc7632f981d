"""This module knows a network that trains on its survivors alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_lottery import sparse_training
from tf_lottery.data import Dataset, Split
from tf_lottery.sparse_training import SparseTraining
from tf_lottery.training import feed
from tf_lottery.training.feed import Batch, Window
from tf_lottery.training.measure import Figures, Measures
from tf_lottery.training.state import State

BREAK_EVEN = 0.35
"""The density below which one thread on survivors outruns the dense loop.

`benchmarks/sparse_training.py` measures it.
"""


def refusal(
    model: keras.Model,
    loss: keras.losses.Loss,
    optimizer: keras.optimizers.Optimizer,
    measures: Measures,
    data: Dataset,
    masks: Mapping[str, np.ndarray],
) -> str | None:
    """Returns why a network trains densely, or None if it need not."""
    if measures.metrics:
        return f"metric {measures.metrics[0].name!r} needs the dense outputs"
    if data.augment is not None:
        return "its inputs are varied at random"
    if feed.streams(data.train):
        return "its data stream, and which inputs are always 0 is not known"
    if data.train.x.dtype != np.float32:
        return f"inputs are {data.train.x.dtype}, not float32"
    if not data.train.x.flags.c_contiguous:
        return "inputs do not lie in memory one after the other"
    kept = sum(int(mask.sum()) for mask in masks.values())
    size = sum(mask.size for mask in masks.values())
    if not size or kept / size > BREAK_EVEN:
        return f"more than {100 * BREAK_EVEN:.0f} % of the weights are left"
    return sparse_training.refusal(model, loss, optimizer, masks)


class SparseNetwork:
    """One network in training, whose pruned weights are not there at all.

    Args:
        model: What is trained.
        optimizer: Its optimizer.
        measures: What is measured.
        state: Where it starts.
        masks: Kernel path to bool array.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        measures: Measures,
        state: State,
        masks: Mapping[str, np.ndarray],
    ) -> None:
        self._build = lambda state: SparseTraining(
            model, masks, optimizer, state.weights, state.slots
        )
        self._measures = measures
        self._others = state.weights
        self.values: Any = self._build(state)

    def run(self, window: Window, start: int, stop: int) -> np.ndarray:
        """Takes steps; returns the sum of losses, `[1]`."""
        (order,) = window.orders
        x = _rows(window.split)
        loss = self.values.run(x, window.split.y, order[start:stop])
        return np.array([loss * (stop - start)])

    def evaluate(self, values: Any, batches: Iterable[Batch]) -> list[Figures]:
        """Returns the figures on a split."""
        losses, rights = [], []
        for batch in batches:
            split = batch.split
            loss, right = values.evaluate(_rows(split), split.y)
            new = batch.counts.numpy() > 0
            losses.append(loss[new])
            rights.append(right[new])
        right = np.concatenate(rights)
        if not self._measures.has_accuracy:
            right = np.zeros_like(right)
        return [self._measures.figures(np.concatenate(losses), right)]

    def better(self, improved: Sequence[bool], before: Any) -> Any:
        """Returns the network as it is: asked for only if it improved."""
        del improved, before
        return self.values.copy()

    def states(self, values: Any, step: int) -> list[State]:
        """Returns the network as a state."""
        weights, slots = values.state()
        weights = {path: weights[path] for path in self._others}
        return [State(step, weights, slots if step else {})]

    def packed(self, states: Sequence[State]) -> Any:
        """Returns a state as a network."""
        (state,) = states
        return self._build(state)


def _rows(split: Split) -> np.ndarray:
    """Returns the inputs as `[examples, inputs]`, where they lie."""
    return split.x.reshape(len(split), -1)
