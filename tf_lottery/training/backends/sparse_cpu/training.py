"""This module knows how a network is trained on its survivors alone."""

import copy
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.training.backends.sparse_cpu import (
    connections,
    dense_chain,
    kernel_types,
    optimizer_rules,
)
from tf_lottery.training.backends.sparse_cpu.layout import Layout

Arrays = Mapping[str, np.ndarray]


def unsupported_reason(
    model: keras.Model,
    loss: Any,
    optimizer: keras.optimizers.Optimizer,
    masks: Arrays,
) -> str | None:
    """Returns why a network cannot be trained here, or None if it can.

    Args:
        model: A built Keras model.
        loss: Its loss, as an object.
        optimizer: Its optimizer, as an object; it may carry masks.
        masks: Kernel path to mask.

    Returns:
        One line, or None for a chain of `Dense` layers, rectified or linear,
        trained by Adam or SGD on sparse categorical cross-entropy of logits.
    """
    try:
        dense_chain.require_masks(dense_chain.read(model), masks)
        optimizer_rules.read(optimizer)
        optimizer_rules.require_loss(loss)
    except dense_chain.UnsupportedError as error:
        return str(error)
    return None


class SparseTraining:
    """Trains one masked network on its surviving weights alone.

    The work shrinks with the ticket. It computes what Keras' dense loop does,
    summed in another order; equal starts and equal steps give equal bits,
    however the steps are cut into calls. It takes one thread and releases
    Python's lock, so that networks train side by side, a thread each.

    Args:
        model: A Keras model that `unsupported_reason` accepts. Only its
            architecture is read; it stays as it is.
        masks: Kernel path to bool array of the kernel's shape, True for what
            survives. A kernel that is not named keeps every weight.
        optimizer: A Keras optimizer that `unsupported_reason` accepts. Only its
            settings are read; it stays as it is.
        weights: Path to float32 array of every weight of the model, 0 where
            pruned: the start.
        slots: Name to array of every variable of the optimizer, named as in
            `training.State`. None or empty: those of a fresh optimizer.

    Attributes:
        right: How many examples the last call of `run` classified right, each
            before the step that it was trained in.

    Raises:
        ValueError: `unsupported_reason` says why, or weights or slots do not
            fit.
    """

    def __init__(
        self,
        model: keras.Model,
        masks: Arrays,
        optimizer: keras.optimizers.Optimizer,
        weights: Arrays,
        slots: Arrays | None = None,
    ) -> None:
        dense = dense_chain.read(model)
        dense_chain.require_masks(dense, masks)
        self._rule = optimizer_rules.read(optimizer)
        self._layout = Layout(dense, masks)
        self._inputs, self._classes = dense[0].shape[0], dense[-1].shape[1]
        slots = slots or {}
        self._iteration = int(slots.get("iteration", 0))
        self._rates = optimizer_rules.Rates(
            optimizer, slots.get("learning_rate")
        )
        self._weights = self._layout.gathered(weights)
        self._slots = {
            name: self._layout.gathered(slots, name)
            if slots
            else np.zeros_like(self._weights)
            for name in optimizer_rules.slot_names(optimizer)
        }
        self._trained_on: np.ndarray | None = None
        self._wired: connections.Wired
        self._wired_whole: connections.Wired | None = None
        self.right = 0

    def run(self, x: np.ndarray, y: np.ndarray, order: np.ndarray) -> float:
        """Takes training steps.

        Inputs that are 0 in every example cost nothing. Which these are is
        found out when an array is first seen: do not write to it afterwards.

        Args:
            x: All training inputs, float32 `[examples, inputs]`, C-contiguous.
            y: Their labels, integers `[examples]`.
            order: The examples of every batch, int32 `[steps, batch]`.

        Returns:
            The mean loss of the steps: nan or infinite if training diverged.

        Raises:
            ValueError: Shape, type or range of an argument is not as above.
        """
        y = self._labels(x, y)
        _require_order(order, len(x))
        survivor, network = self._wired_for(x)
        held = (self._weights, *self._slots.values())
        parts = [array[survivor] for array in held]
        nothing = np.zeros(len(survivor), np.float32)
        weight, first, second = (*parts, nothing, nothing)[:3]
        parameters = kernel_types.Parameters(
            weight, np.zeros_like(weight), first, second
        )
        stop = self._iteration + len(order)
        batches = kernel_types.Batches(
            _read_only(x),
            y,
            _read_only(order),
            _read_only(self._rates(self._iteration, stop)),
            self._iteration,
        )
        buffers = kernel_types.buffers(network, order.shape[1])
        loss = _kernel()(network, parameters, self._rule, batches, buffers)
        for array, values in zip(held, parts, strict=True):
            array[survivor] = values
        self._iteration = stop
        self.right = int(buffers.right[0])
        return loss

    def copy(self) -> "SparseTraining":
        """Returns the network as it stands; training leaves the copy alone."""
        other = copy.copy(self)
        other._weights = self._weights.copy()
        other._slots = {name: s.copy() for name, s in self._slots.items()}
        return other

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns weights by path and slots by name, 0 where pruned."""
        slots = {"iteration": np.array(self._iteration, np.int64)}
        if self._rates.constant is not None:
            slots["learning_rate"] = np.array(self._rates.constant)
        for name, values in self._slots.items():
            slots |= self._layout.spread(values, name)
        return self._layout.spread(self._weights), slots

    def evaluate(
        self, x: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates the network as it stands.

        Args:
            x: Inputs, float32 `[examples, inputs]`, C-contiguous.
            y: Their labels, integers `[examples]`.

        Returns:
            The loss of every example, float32, and whether it was classified
            right, bool, both `[examples]`.

        Raises:
            ValueError: Shape, type or range of an argument is not as above.
        """
        y = self._labels(x, y)
        if self._wired_whole is None:
            live = np.ones(self._inputs, bool)
            self._wired_whole = connections.wire(self._layout.layers, live)
        survivor, network = self._wired_whole
        weight = self._weights[survivor[: len(network.column)]]
        nothing = np.zeros(0, np.float32)
        parameters = kernel_types.Parameters(weight, nothing, nothing, nothing)
        every = _read_only(np.arange(len(x), dtype=np.int32)[None])
        batches = kernel_types.Batches(
            _read_only(x), y, every, _read_only(nothing), iteration=0
        )
        buffers = kernel_types.buffers(network, len(x))
        _kernel()(network, parameters, self._rule, batches, buffers)
        return buffers.losses, buffers.correct

    def _wired_for(self, x: np.ndarray) -> connections.Wired:
        """Returns the connections that these training inputs can change."""
        if self._trained_on is None or not _same_memory(x, self._trained_on):
            live = np.asarray(x.any(axis=0))
            self._wired = connections.wire(self._layout.layers, live)
            self._trained_on = x
        survivor, network = self._wired
        # Without gradient and slots, neither Adam nor SGD changes a weight.
        idle = survivor[len(network.column) :]
        if not any(slot[idle].any() for slot in self._slots.values()):
            survivor = survivor[: len(network.column)]
        return connections.Wired(survivor, network)

    def _labels(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the labels as the kernel takes them; checks both."""
        form = x.dtype, x.ndim, x.shape[-1], x.flags.c_contiguous
        if form != (np.float32, 2, self._inputs, True) or not len(x):
            raise UserError(
                "`x` must be C-contiguous, float32, of shape [examples, "
                f"{self._inputs}]; got {x.dtype} {x.shape}. Flatten images: "
                "x.reshape(len(x), -1)."
            )
        if y.shape != (len(x),) or y.dtype.kind not in "iu":
            raise UserError(
                f"`y` must hold {len(x)} integers, a label for each input; got "
                f"{y.dtype} {y.shape}."
            )
        if y.min() < 0 or y.max() >= self._classes:
            raise UserError(
                f"`y` holds labels {y.min()} to {y.max()}; the network has "
                f"outputs for 0 to {self._classes - 1}."
            )
        return _read_only(np.ascontiguousarray(y, np.int32))


def _require_order(order: np.ndarray, examples: int) -> None:
    if order.dtype != np.int32 or order.ndim != 2 or not order.size:
        raise UserError(
            "`order` must be int32, of shape [steps, batch], neither 0; got "
            f"{order.dtype} {order.shape}."
        )
    if not order.flags.c_contiguous:
        raise UserError("`order` must be C-contiguous: order.copy().")
    if order.min() < 0 or order.max() >= examples:
        raise UserError(
            f"`order` names examples {order.min()} to {order.max()}; there are "
            f"0 to {examples - 1}."
        )


def _same_memory(one: np.ndarray, other: np.ndarray) -> bool:
    """Returns whether two contiguous arrays are views of the same numbers."""
    same = one.ctypes.data == other.ctypes.data
    return same and one.shape == other.shape


def _read_only(array: np.ndarray) -> np.ndarray:
    """Returns a view; to numba, a read-only array is of another type.

    A second type would mean a second compilation.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def _kernel() -> Any:
    # Importing numba, and loading what it compiled, takes most of a second.
    from tf_lottery.training.backends.sparse_cpu import kernels

    return kernels.run
