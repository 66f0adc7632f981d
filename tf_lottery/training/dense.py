"""This module knows networks that train densely, one or many as one program."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.training import program
from tf_lottery.training.arrangement import (
    Arrangement,
    Single,
    Unrolled,
    Vectorised,
)
from tf_lottery.training.feed import Batch, Window
from tf_lottery.training.measure import Figures, Measures
from tf_lottery.training.network import Augment, Network
from tf_lottery.training.state import State


class DensePrograms:
    """The compiled programs of one network architecture, made when needed.

    Args:
        network: What is trained.
        measures: What is measured.
        augment: What happens to training inputs, or None.
    """

    def __init__(
        self, network: Network, measures: Measures, augment: Augment | None
    ) -> None:
        self.network, self.measures = network, measures
        self._augment = augment
        self._tried: dict[str, str | None] = {}
        self._training: dict[str, Callable[..., Any]] = {}
        self._evaluation: dict[str, Callable[..., Any]] = {}

    def training(self, arrangement: Arrangement) -> Callable[..., Any]:
        """Returns `program.training_steps` of the network."""
        name = arrangement.name
        if name not in self._training:
            self._training[name] = program.training_steps(
                self.network, arrangement, self._augment
            )
        return self._training[name]

    def evaluation(self, arrangement: Arrangement) -> Callable[..., Any]:
        """Returns `program.evaluation` of the network."""
        name = arrangement.name
        if name not in self._evaluation:
            self._evaluation[name] = program.evaluation(
                self.network, arrangement, self.measures
            )
        return self._evaluation[name]

    def arrangement(
        self, networks: int, x: tf.TensorSpec, y: tf.TensorSpec
    ) -> tuple[Arrangement, str]:
        """Returns how so many networks lie side by side, and why so.

        Args:
            networks: How many, >= 1.
            x: A batch of inputs.
            y: A batch of targets.
        """
        if networks == 1:
            return Single(), "it is one network"
        reason = self.refusal(x, y)
        if reason:
            return Unrolled(), f"the model cannot be vectorised: {reason}"
        return Vectorised(networks), "all of the model can be vectorised"

    def refusal(self, x: tf.TensorSpec, y: tf.TensorSpec) -> str | None:
        """Returns why a step cannot be vectorised, or None if it can."""
        if "reason" not in self._tried:
            self._tried["reason"] = self._try(x, y)
        return self._tried["reason"]

    def _try(self, x: tf.TensorSpec, y: tf.TensorSpec) -> str | None:
        """Takes a step of two networks; nobody knows beforehand what works."""
        network, two = self.network, Vectorised(2)
        values = network.values_of(network.state)
        masks = [
            tf.ones(values.weights[i].shape, tf.bool)
            for i in network.masked.values()
        ]
        orders = tf.zeros([1, x.shape[0]], tf.int32)
        key = tf.constant(0)
        packed = [
            two.pack([each, each]) for each in (values, masks, key, orders)
        ]
        data = [tf.zeros(spec.shape, spec.dtype) for spec in (x, y)]
        steps = [tf.constant(step) for step in (0, 0, 1)]
        run = program.training_steps(network, two, self._augment)
        # It reports at length what is no error here.
        logger = tf.get_logger()
        level = logger.level
        try:
            logger.setLevel(logging.CRITICAL)
            run(*packed, *data, *steps)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            return _reason(str(error))
        finally:
            logger.setLevel(level)
        return None


class DenseNetworks:
    """Networks in training, whose pruned weights are zeros among the others.

    Args:
        programs: The programs that train them.
        arrangement: How they lie side by side.
        states: Where each starts.
        masks: Of each, kernel path to bool array.
        keys: Of each, the key of its augmentation.
    """

    def __init__(
        self,
        programs: DensePrograms,
        arrangement: Arrangement,
        states: Sequence[State],
        masks: Sequence[Mapping[str, np.ndarray]],
        keys: Sequence[int],
    ) -> None:
        self._programs, self._arrangement = programs, arrangement
        network, pack = programs.network, arrangement.pack
        self.values = self.packed(states)
        self._masks = pack([network.masks_of(m) for m in masks])
        self._keys = pack([tf.constant(key, tf.int32) for key in keys])
        self._count = len(states)
        self._orders: tuple[Any, Any] = (None, None)

    def run(self, window: Window, start: int, stop: int) -> np.ndarray:
        """Trains on rows `start` to `stop` of the window's orders.

        Returns:
            Of each network the sum of the losses, float64 `[networks]`.
        """
        if self._orders[0] is not window:
            orders = [tf.constant(order, tf.int32) for order in window.orders]
            self._orders = window, self._arrangement.pack(orders)
        self.values, totals = self._programs.training(self._arrangement)(
            self.values,
            self._masks,
            self._keys,
            self._orders[1],
            window.x,
            window.y,
            tf.constant(window.first),
            tf.constant(start),
            tf.constant(stop),
        )
        each = self._arrangement.unpack(totals)
        return np.array([float(total) for total in each])

    def evaluate(self, values: Any, batches: Iterable[Batch]) -> list[Figures]:
        """Returns of each network its figures on a split."""
        run = self._programs.evaluation(self._arrangement)
        measures = self._programs.measures
        totals = self._arrangement.pack([measures.zeros()] * self._count)
        losses, rights, new = [], [], []
        for batch in batches:
            loss, right, totals = run(
                values, totals, batch.x, batch.y, batch.counts
            )
            losses.append(self._arrangement.unpack(loss))
            rights.append(self._arrangement.unpack(right))
            new.append(batch.counts.numpy() > 0)
        figures = []
        for i, total in enumerate(self._arrangement.unpack(totals)):
            loss, right = (
                np.concatenate(
                    [
                        part[i].numpy()[keep]
                        for part, keep in zip(parts, new, strict=True)
                    ]
                )
                for parts in (losses, rights)
            )
            figures.append(measures.figures(loss, right, total))
        return figures

    def better(self, improved: Sequence[bool], before: Any) -> Any:
        """Returns `values` of the networks that improved, else those before."""
        if all(improved) or before is None:
            return self.values
        new, old = map(self._arrangement.unpack, (self.values, before))
        return self._arrangement.pack(
            [
                n if better else o
                for n, o, better in zip(new, old, improved, strict=True)
            ]
        )

    def packed(self, states: Sequence[State]) -> Any:
        """Returns the states of the networks as values."""
        values_of = self._programs.network.values_of
        return self._arrangement.pack([values_of(state) for state in states])

    def states(self, values: Any, step: int) -> list[State]:
        """Returns values as the states of the networks."""
        return [
            self._programs.network.state_of(each, step)
            for each in self._arrangement.unpack(values)
        ]


def _reason(text: str) -> str:
    """Returns what TensorFlow's pages of text say, in a line."""
    for form in (
        r"No pfor vectorization defined for \w+",
        r"Input .* of op .*",
    ):
        if match := re.search(form, text):
            return match[0]
    return next((line for line in text.splitlines() if line.strip()), "?")
