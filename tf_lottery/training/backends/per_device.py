"""Networks that are spread over devices.

Each device trains some of them, all at the same time, and none waits for
another: nothing is communicated.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.data import nested
from tf_lottery.training.input_pipeline import Batch, Buffer, Examples
from tf_lottery.training.loop import Backend
from tf_lottery.training.objective import EvalResult
from tf_lottery.training.state import State

Build = Callable[[slice], Backend]


class PerDeviceBackend:
    """Networks in training, spread over devices.

    Args:
        build: Returns networks, of which the slice says which; called once
            for each device, which then is the current one.
        count: How many networks there are.
        devices: Where they train.
    """

    def __init__(
        self, build: Build, count: int, devices: Sequence[str]
    ) -> None:
        self._devices = devices[:count]
        bounds = np.linspace(0, count, len(self._devices) + 1).astype(int)
        self._slices = [
            slice(*pair) for pair in zip(bounds, bounds[1:], strict=False)
        ]
        self._threads = concurrent.futures.ThreadPoolExecutor(
            len(self._devices)
        )
        self._windows: tuple[Any, list[Buffer]] = (None, [])
        self._parts = self._on_each(build, self._slices)
        self.values: Any = [part.values for part in self._parts]

    def run(self, window: Buffer, start: int, stop: int) -> np.ndarray:
        """Takes steps; returns each network's losses so far, `[networks]`."""
        if self._windows[0] is not window:
            parts = self._on_each(
                lambda i, before: _part(window, self._slices[i], before),
                range(len(self._parts)),
                self._windows[1] or [None] * len(self._parts),
            )
            self._windows = window, parts
        losses = self._on_each(
            lambda part, window: part.run(window, start, stop),
            self._parts,
            self._windows[1],
        )
        self.values = [part.values for part in self._parts]
        return np.concatenate(losses)

    def counted(self) -> list[list[np.ndarray]]:
        """Returns of each network what its metrics counted so far."""
        return [each for part in self._parts for each in part.counted()]

    def count_from(self, totals: Sequence[Sequence[Any]] | None) -> None:
        """Has metrics count on from earlier counts; None: from nothing."""
        self._on_each(
            lambda part, at: part.count_from(
                None if totals is None else totals[at]
            ),
            self._parts,
            self._slices,
        )

    def training_metrics(self) -> list[dict[str, Any]]:
        """Returns of each network its metrics over the steps counted."""
        return [m for part in self._parts for m in part.training_metrics()]

    def evaluate(
        self, values: Any, batches: Iterable[Batch], per_example: bool = False
    ) -> list[EvalResult]:
        """Returns each network's results on a split."""
        results = self._on_each(
            lambda part, values: part.evaluate(values, batches, per_example),
            self._parts,
            values,
        )
        return [each for some in results for each in some]

    def keep_best(self, improved: Sequence[bool], before: Any) -> Any:
        """Returns `values` of the networks that improved, else those before."""
        return self._on_each(
            lambda part, its, before: (
                part.keep_best(its, before) if any(its) else before
            ),
            self._parts,
            [improved[at] for at in self._slices],
            before or [None] * len(self._parts),
        )

    def states(self, values: Any, step: int) -> list[State]:
        """Returns values as states."""
        pairs = zip(self._parts, values, strict=True)
        return [s for part, each in pairs for s in part.states(each, step)]

    def pack_states(self, states: Sequence[State]) -> Any:
        """Returns states as values."""
        return self._on_each(
            lambda part, at: part.pack_states(states[at]),
            self._parts,
            self._slices,
        )

    def _on_each(
        self, function: Callable[..., Any], *each: Sequence[Any]
    ) -> list[Any]:
        def there(device: str, *arguments: Any) -> Any:
            with tf.device(device):
                return function(*arguments)

        return list(self._threads.map(there, self._devices, *each))


def _part(window: Buffer, at: slice, before: Buffer | None) -> Buffer:
    """Returns a window of some networks, its examples on this device."""
    if before is not None and before.split is window.split:
        examples = before.examples
    else:
        examples = Examples(
            *nested.map_arrays(tf.identity, tuple(window.examples))
        )
    return dataclasses.replace(
        window, examples=examples, orders=window.orders[at]
    )
