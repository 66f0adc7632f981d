"""Networks distributed over devices.

Each device trains some of the networks. All devices work at the same time and
do not communicate.
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
    """Trains some networks on each device.

    Args:
        build: Returns the backend of a slice of the networks; called once per
            device, inside `tf.device`.
        count: Number of networks, >= 1.
        devices: Names of the devices to use.
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
        self._buffers: tuple[Any, list[Buffer]] = (None, [])
        self._backends = self._on_each(build, self._slices)
        self.device_state: Any = [part.device_state for part in self._backends]

    def run(self, buffer: Buffer, start: int, stop: int) -> np.ndarray:
        """Takes steps; returns a loss per network, float64 `[networks]`."""
        if self._buffers[0] is not buffer:
            parts = self._on_each(
                lambda i, previous: _slice(buffer, self._slices[i], previous),
                range(len(self._backends)),
                self._buffers[1] or [None] * len(self._backends),
            )
            self._buffers = buffer, parts
        losses = self._on_each(
            lambda part, buffer: part.run(buffer, start, stop),
            self._backends,
            self._buffers[1],
        )
        self.device_state = [part.device_state for part in self._backends]
        return np.concatenate(losses)

    def metric_totals(self) -> list[list[np.ndarray]]:
        """Returns, per network, the values of Keras' metrics variables."""
        return [
            each for part in self._backends for each in part.metric_totals()
        ]

    def set_metric_totals(self, totals: Sequence[Sequence[Any]] | None) -> None:
        """Sets what `metric_totals` returned earlier; None resets metrics."""
        self._on_each(
            lambda part, networks: part.set_metric_totals(
                None if totals is None else totals[networks]
            ),
            self._backends,
            self._slices,
        )

    def training_metrics(self) -> list[dict[str, Any]]:
        """Returns, per network, metrics of the steps since the last reset."""
        return [m for part in self._backends for m in part.training_metrics()]

    def evaluate(
        self,
        device_state: Any,
        batches: Iterable[Batch],
        per_example: bool = False,
    ) -> list[EvalResult]:
        """Returns, per network, its loss and metrics on a split."""
        results = self._on_each(
            lambda part, part_state: part.evaluate(
                part_state, batches, per_example
            ),
            self._backends,
            device_state,
        )
        return [each for some in results for each in some]

    def keep_best(self, improved: Sequence[bool], best: Any) -> Any:
        """Returns current states where improved, else the best so far."""
        return self._on_each(
            lambda part, part_improved, part_best: (
                part.keep_best(part_improved, part_best)
                if any(part_improved)
                else part_best
            ),
            self._backends,
            [improved[networks] for networks in self._slices],
            best or [None] * len(self._backends),
        )

    def unpack_states(self, device_state: Any, step: int) -> list[State]:
        """Returns one `State` per network, labeled with `step`."""
        pairs = zip(self._backends, device_state, strict=True)
        return [
            state
            for part, part_state in pairs
            for state in part.unpack_states(part_state, step)
        ]

    def pack_states(self, states: Sequence[State]) -> Any:
        """Returns a device state of one `State` per network."""
        return self._on_each(
            lambda part, networks: part.pack_states(states[networks]),
            self._backends,
            self._slices,
        )

    def _on_each(
        self, function: Callable[..., Any], *each: Sequence[Any]
    ) -> list[Any]:
        def run_on(device: str, *arguments: Any) -> Any:
            with tf.device(device):
                return function(*arguments)

        return list(self._threads.map(run_on, self._devices, *each))


def _slice(buffer: Buffer, networks: slice, previous: Buffer | None) -> Buffer:
    """Returns the buffer of some networks, with its examples on this device."""
    if previous is not None and previous.split is buffer.split:
        examples = previous.examples
    else:
        examples = Examples(
            *nested.map_arrays(tf.identity, tuple(buffer.examples))
        )
    return dataclasses.replace(
        buffer, examples=examples, orders=buffer.orders[networks]
    )
