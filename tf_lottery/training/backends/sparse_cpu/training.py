"""Training and evaluation of one network on its surviving weights."""

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
    """Returns why `SparseTraining` cannot train a network, or None if it can.

    It trains chains of `Dense` layers, ReLU or linear, by Adam or SGD, on
    sparse categorical cross-entropy of logits.

    Args:
        model: A built Keras model.
        loss: A Keras loss object.
        optimizer: A Keras optimizer object; it may carry masks.
        masks: Kernel path to bool array of the kernel's shape.

    Returns:
        The reason in one line, or None.
    """
    try:
        dense_chain.require_masks(dense_chain.read(model), masks)
        optimizer_rules.read(optimizer)
        optimizer_rules.require_loss(loss)
    except dense_chain.UnsupportedError as error:
        return str(error)
    return None


class SparseTraining:
    """Trains one masked network on its surviving weights only.

    The work is proportional to the number of survivors. Results are those of
    dense training by Keras but for the order of summation. Equal starts and
    equal steps give equal bits, however the steps are divided into calls. It
    uses one thread and releases the GIL, so several networks can train at the
    same time, one thread each.

    Args:
        model: A Keras model that `unsupported_reason` accepts. Only its
            architecture is read; it is not changed.
        masks: Kernel path to bool array of the kernel's shape, True for
            weights that survive. A kernel that is not named keeps all weights.
        optimizer: A Keras optimizer that `unsupported_reason` accepts. Only
            its settings are read; it is not changed.
        weights: Path to float32 array of every weight of the model, 0 where
            pruned: the start.
        slots: Name to array of every variable of the optimizer, named as in
            `training.State`. None or empty: those of a new optimizer.

    Attributes:
        right: Number of examples that the last call of `run` classified
            correctly, each before the update of its step.

    Raises:
        UserError: `unsupported_reason` returns a reason.
        ValueError: Weights or slots do not fit.
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
        self._weights = self._layout.gather(weights)
        self._slots = {
            name: self._layout.gather(slots, name)
            if slots
            else np.zeros_like(self._weights)
            for name in optimizer_rules.slot_names(optimizer)
        }
        self._inputs_seen: np.ndarray | None = None
        self._training_connections: connections.Connections
        self._all_connections: connections.Connections | None = None
        self.right = 0

    def run(self, x: np.ndarray, y: np.ndarray, order: np.ndarray) -> float:
        """Takes training steps.

        Inputs that are 0 in every example cost nothing. They are determined
        when an array `x` is first passed: do not write to it afterwards.

        Args:
            x: All training inputs, float32 `[examples, inputs]`, C-contiguous.
            y: Their labels, integers `[examples]`.
            order: The examples of each batch, int32 `[steps, batch]`.

        Returns:
            The mean loss of the steps: nan or infinite if training diverged.

        Raises:
            UserError: Shape, dtype or range of an argument is not as above.
        """
        y = self._labels(x, y)
        _require_order(order, len(x))
        survivor, network = self._connections_for(x)
        arrays = (self._weights, *self._slots.values())
        parts = [array[survivor] for array in arrays]
        unused = np.zeros(len(survivor), np.float32)
        weight, first, second = (*parts, unused, unused)[:3]
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
        for array, values in zip(arrays, parts, strict=True):
            array[survivor] = values
        self._iteration = stop
        self.right = int(buffers.right[0])
        return loss

    def copy(self) -> "SparseTraining":
        """Returns a copy, which training this network does not change."""
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
            slots |= self._layout.scatter(values, name)
        return self._layout.scatter(self._weights), slots

    def evaluate(
        self, x: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates the network.

        Args:
            x: Inputs, float32 `[examples, inputs]`, C-contiguous.
            y: Their labels, integers `[examples]`.

        Returns:
            The loss of each example, float32, and whether it is classified
            correctly, bool; both `[examples]`.

        Raises:
            UserError: Shape, dtype or range of an argument is not as above.
        """
        y = self._labels(x, y)
        if self._all_connections is None:
            live = np.ones(self._inputs, bool)
            self._all_connections = connections.build_connections(
                self._layout.layers, live
            )
        survivor, network = self._all_connections
        weight = self._weights[survivor[: len(network.column)]]
        empty = np.zeros(0, np.float32)
        parameters = kernel_types.Parameters(weight, empty, empty, empty)
        order = _read_only(np.arange(len(x), dtype=np.int32)[None])
        batches = kernel_types.Batches(
            _read_only(x), y, order, _read_only(empty), iteration=0
        )
        buffers = kernel_types.buffers(network, len(x))
        _kernel()(network, parameters, self._rule, batches, buffers)
        return buffers.losses, buffers.correct

    def _connections_for(self, x: np.ndarray) -> connections.Connections:
        """Returns the connections that training on these inputs can change."""
        if self._inputs_seen is None or not _same_memory(x, self._inputs_seen):
            live = np.asarray(x.any(axis=0))
            self._training_connections = connections.build_connections(
                self._layout.layers, live
            )
            self._inputs_seen = x
        survivor, network = self._training_connections
        # If gradient and slots are 0, neither Adam nor SGD changes a weight.
        idle = survivor[len(network.column) :]
        if not any(slot[idle].any() for slot in self._slots.values()):
            survivor = survivor[: len(network.column)]
        return connections.Connections(survivor, network)

    def _labels(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Checks inputs and labels; returns the labels as read-only int32."""
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
    """Returns a read-only view.

    Numba compiles again for a writable array, which has another type.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def _kernel() -> Any:
    # Importing numba and loading the compiled kernel takes most of a second.
    from tf_lottery.training.backends.sparse_cpu import kernels

    return kernels.run
