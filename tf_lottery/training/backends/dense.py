"""Dense training of one or several networks in one compiled function."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.data import nested
from tf_lottery.training.backends import compiled_steps
from tf_lottery.training.backends.compiled_steps import StepInputs
from tf_lottery.training.backends.functional_model import (
    Augment,
    FunctionalModel,
    without_slots,
)
from tf_lottery.training.backends.stacking import (
    Single,
    Stacking,
    Unrolled,
    Vmapped,
)
from tf_lottery.training.input_pipeline import Batch, Buffer, Examples
from tf_lottery.training.objective import EvalResult, Objective, as_decisions
from tf_lottery.training.state import State

_log = logging.getLogger(__name__)


class DensePrograms:
    """The compiled functions of one architecture, built on first use.

    Args:
        network: The architecture, its optimizer and its objective.
        augment: Augmentation of training inputs, or None.
        jit_compile: Whether XLA compiles them. If XLA cannot compile one, all
            run without XLA from then on, with a warning in the log.
    """

    def __init__(
        self,
        network: FunctionalModel,
        augment: Augment | None,
        jit_compile: bool,
    ) -> None:
        self.network = network
        self._augment = augment
        self._jit = jit_compile
        self._not_vectorized: tuple[str | None] | None = None
        self._functions: dict[tuple[str, str, bool], Callable[..., Any]] = {}

    @property
    def objective(self) -> Objective:
        """The loss and the metrics."""
        return self.network.objective

    def train(
        self,
        stacking: Stacking,
        values: Any,
        totals: Any,
        inputs: StepInputs,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> Any:
        """Returns packed values and metric totals after training steps.

        Args:
            stacking: How the networks are packed.
            values: Packed `Values` before the steps.
            totals: Packed values of the metrics variables before the steps.
            inputs: Masks, batches and augmentation keys.
            start: Index of the first batch in `inputs.orders`, int32 scalar.
            stop: Index after the last batch, int32 scalar.
        """
        return self._run(
            "training", stacking, values, totals, inputs, start, stop
        )

    def evaluate(
        self, stacking: Stacking, values: Any, totals: Any, examples: Examples
    ) -> Any:
        """Returns values for the next batch (or None) and metric totals.

        Args:
            stacking: How the networks are packed.
            values: Packed `Values`.
            totals: Packed values of the metrics variables so far.
            examples: The batch.
        """
        return self._run("evaluation", stacking, values, totals, examples)

    def per_example(
        self, stacking: Stacking, values: Any, examples: Examples
    ) -> Any:
        """Returns, packed, the deciding metric of each example, `[examples]`.

        Args:
            stacking: How the networks are packed.
            values: Packed `Values`.
            examples: The batch.
        """
        return self._run("per example", stacking, values, examples)

    def _run(self, kind: str, stacking: Stacking, *args: Any) -> Any:
        if not self._jit:
            return self._function(kind, stacking)(*args)
        try:
            return self._function(kind, stacking)(*args)
        except (
            tf.errors.InvalidArgumentError,
            tf.errors.UnimplementedError,
        ) as error:
            # An error that is not XLA's is raised again by this second call.
            self._jit = False
            result = self._function(kind, stacking)(*args)
            _log.warning(
                "XLA cannot compile this network (%s): it trains without.",
                _reason(str(error)),
            )
            return result

    def _function(self, kind: str, stacking: Stacking) -> Callable[..., Any]:
        key = kind, stacking.name, self._jit
        if key not in self._functions:
            self._functions[key] = self._compile(kind, stacking)
        return self._functions[key]

    def _compile(self, kind: str, stacking: Stacking) -> Callable[..., Any]:
        network, jit = self.network, self._jit
        if kind == "training":
            return compiled_steps.training_steps(
                network, stacking, self._augment, jit
            )
        if kind == "evaluation":
            return compiled_steps.evaluation(network, stacking, jit)
        return compiled_steps.per_example(network, stacking, jit)

    def stacking(self, networks: int, sample: Examples) -> tuple[Stacking, str]:
        """Returns how to pack networks into one program, and the reason.

        Args:
            networks: Number of networks, >= 1.
            sample: A batch of training examples.
        """
        if networks == 1:
            return Single(), "it is one network"
        reason = self.unsupported_reason(sample)
        if reason:
            return Unrolled(), f"the model cannot be vectorised: {reason}"
        return Vmapped(networks), "all of the model can be vectorised"

    def unsupported_reason(self, sample: Examples) -> str | None:
        """Returns why a step cannot be vectorized, or None if it can.

        Args:
            sample: A batch of training examples.
        """
        if self._not_vectorized is None:
            self._not_vectorized = (self._try_vectorized(sample),)
        return self._not_vectorized[0]

    def _try_vectorized(self, sample: Examples) -> str | None:
        """Takes a step of two networks; returns what TensorFlow says."""
        network, two = self.network, Vmapped(2)
        values = network.values_of(network.state)
        totals = network.objective.zeros()
        masks = [
            tf.ones(values.weights[i].shape, tf.bool)
            for i in network.masked.values()
        ]
        size = len(nested.arrays_of(sample.x)[0])
        orders = tf.zeros([1, size], tf.int32)
        key = tf.constant(0)
        values, totals, masks, key, orders = (
            two.pack([each, each])
            for each in (values, totals, masks, key, orders)
        )
        inputs = StepInputs(masks, key, orders, sample, tf.constant(0))
        # TensorFlow logs pages about what is no error for us.
        logger = tf.get_logger()
        level = logger.level
        try:
            logger.setLevel(logging.CRITICAL)
            self.train(
                two, values, totals, inputs, tf.constant(0), tf.constant(1)
            )
            self.evaluate(two, values, totals, sample)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            return _reason(str(error))
        finally:
            logger.setLevel(level)
        return None


class DenseBackend:
    """Trains networks as dense ones: pruned weights are stored as zeros.

    Args:
        programs: The compiled functions of the architecture.
        stacking: How the networks are batched into one program.
        states: Start of each network.
        masks: Per network, kernel path to bool array of the kernel's shape.
        keys: Augmentation key of each network, int32.
    """

    def __init__(
        self,
        programs: DensePrograms,
        stacking: Stacking,
        states: Sequence[State],
        masks: Sequence[Mapping[str, np.ndarray]],
        keys: Sequence[int],
    ) -> None:
        self._programs, self._stacking = programs, stacking
        network, pack = programs.network, stacking.pack
        self.device_state = self.pack_states(states)
        self._count = len(states)
        self._totals = self._zeros()
        self._masks = pack([network.masks_of(m) for m in masks])
        self._keys = pack([tf.constant(key, tf.int32) for key in keys])
        self._orders: tuple[Any, Any] = (None, None)

    def run(self, buffer: Buffer, start: int, stop: int) -> np.ndarray:
        """Trains on rows `start` to `stop` of the buffer's orders.

        Args:
            buffer: The batches, and the examples on the device.
            start: Index of the first batch in the buffer.
            stop: Index after the last batch.

        Returns:
            Per network, the sum of losses since metrics were reset, float64
            `[networks]`.
        """
        if self._orders[0] is not buffer:
            orders = [tf.constant(order, tf.int32) for order in buffer.orders]
            self._orders = buffer, self._stacking.pack(orders)
        self.device_state, self._totals = self._programs.train(
            self._stacking,
            self.device_state,
            self._totals,
            StepInputs(
                self._masks,
                self._keys,
                self._orders[1],
                buffer.examples,
                tf.constant(buffer.first),
            ),
            tf.constant(start),
            tf.constant(stop),
        )
        each = self._stacking.unpack(self._totals)
        return np.array([float(total[0]) for total in each])

    def metric_totals(self) -> list[list[np.ndarray]]:
        """Returns, per network, the values of Keras' metrics variables."""
        each = self._stacking.unpack(self._totals)
        return [[total.numpy() for total in totals] for totals in each]

    def set_metric_totals(self, totals: Sequence[Sequence[Any]] | None) -> None:
        """Sets what `metric_totals` returned earlier; None resets metrics."""
        if totals is None:
            self._totals = self._zeros()
        else:
            self._totals = self._stacking.pack(
                [[tf.constant(t) for t in each] for each in totals]
            )

    def training_metrics(self) -> list[dict[str, Any]]:
        """Returns, per network, metrics of the steps since the last reset."""
        results = self._programs.objective.results
        return [results(t) for t in self._stacking.unpack(self._totals)]

    def evaluate(
        self,
        device_state: Any,
        batches: Iterable[Batch],
        per_example: bool = False,
    ) -> list[EvalResult]:
        """Returns, per network, its loss and metrics on a split."""
        totals, programs = self._zeros(), self._programs
        current = device_state = without_slots(device_state)
        for batch in batches:
            after, totals = programs.evaluate(
                self._stacking, current, totals, batch.examples
            )
            current = device_state if after is None else after
        examples: list[np.ndarray | None] = [None] * self._count
        if per_example:
            examples = self._per_example(device_state, batches)
        results = programs.objective.results
        return [
            EvalResult(results(total), each)
            for total, each in zip(
                self._stacking.unpack(totals), examples, strict=True
            )
        ]

    def _per_example(
        self, device_state: Any, batches: Iterable[Batch]
    ) -> list[np.ndarray | None]:
        parts = [
            self._stacking.unpack(
                self._programs.per_example(
                    self._stacking, device_state, batch.examples
                )
            )
            for batch in batches
        ]
        return [
            as_decisions(np.concatenate([part[i].numpy() for part in parts]))
            for i in range(self._count)
        ]

    def _zeros(self) -> Any:
        zeros = self._programs.objective.zeros()
        return self._stacking.pack([zeros] * self._count)

    def keep_best(self, improved: Sequence[bool], best: Any) -> Any:
        """Returns current states where improved, else the best so far.

        Slots are left out: they take more memory than the weights.
        """
        current = without_slots(self.device_state)
        if all(improved) or best is None:
            return current
        unpack = self._stacking.unpack
        new, old = unpack(current), unpack(without_slots(best))
        return self._stacking.pack(
            [
                n if is_better else o
                for n, o, is_better in zip(new, old, improved, strict=True)
            ]
        )

    def pack_states(self, states: Sequence[State]) -> Any:
        """Returns a device state of one `State` per network."""
        values_of = self._programs.network.values_of
        return self._stacking.pack([values_of(state) for state in states])

    def unpack_states(self, device_state: Any, step: int) -> list[State]:
        """Returns one `State` per network, labeled with `step`."""
        return [
            self._programs.network.state_of(each, step)
            for each in self._stacking.unpack(device_state)
        ]


def _reason(text: str) -> str:
    """Returns the informative line of a long TensorFlow message."""
    for form in (
        r"No pfor vectorization defined for \w+",
        r"Input .* of op .*",
    ):
        if match := re.search(form, text):
            return match[0]
    return next((line for line in text.splitlines() if line.strip()), "?")
