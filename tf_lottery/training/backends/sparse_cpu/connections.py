"""The surviving connections of a network, in the order of computation."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tf_lottery.training.backends.sparse_cpu import kernel_types

# All units read one block of inputs before the next block, so that the block
# stays in the L1 cache, which 128 rows of 256 bytes fill. A block needs enough
# connections per unit to pay for loading and storing the unit's sum.
_ROWS_IN_BLOCK = 100
_MIN_CONNECTIONS_IN_SEGMENT = 12
_COPIED_TOGETHER = 8


@dataclasses.dataclass(frozen=True)
class Layer:
    """A fully connected layer.

    Attributes:
        mask: bool `[inputs, units]`, True for weights that survive.
        has_bias: Whether its units have biases.
        relu: Whether its activation is ReLU; otherwise it is linear.
    """

    mask: np.ndarray
    has_bias: bool
    relu: bool

    @property
    def survivors(self) -> int:
        """Number of surviving weights and biases."""
        return int(self.mask.sum()) + self.has_bias * self.mask.shape[1]


class Connections(NamedTuple):
    """The connections of a network, and the weight that each one uses.

    Attributes:
        survivor: int64 `[survivors]`, the number of each connection's weight,
            then the numbers of idle weights, which no connection uses.
            Survivors are numbered layer by layer: those of the kernel by flat
            index, then the biases.
        network: The connections, as the compiled kernel reads them.
    """

    survivor: np.ndarray
    network: kernel_types.Network


def build_connections(layers: Sequence[Layer], live: np.ndarray) -> Connections:
    """Returns the connections that can have a gradient.

    Left out, because their gradients are 0: connections that read an input
    which is always 0, and connections into units that reach no output.

    Args:
        layers: The layers, from the inputs to the logits.
        live: bool `[inputs]`, False for inputs that are 0 in every example.

    Example:
        >>> mask = np.array([[1, 0], [1, 1], [0, 1]], bool)
        >>> layers = [Layer(mask, has_bias=True, relu=False)]
        >>> survivor, network = build_connections(layers, np.ones(3, bool))
        >>> network.column.tolist(), survivor.tolist()
        ([3, 0, 1, 3, 1, 2], [4, 0, 1, 5, 2, 3])
    """
    useful = _useful(layers, live)
    row_of, layer_row = _number_rows(useful)
    survivors, columns, starts, rows = [], [], [], []
    layer_segment, survivors_before, connections = [0], 0, 0
    for k, layer in enumerate(layers):
        survivor, source, target, start = _layer_connections(
            layer, *useful[k : k + 2]
        )
        survivors.append(survivors_before + survivor)
        # A bias has source -1 and reads the row of ones.
        columns.append(np.where(source < 0, len(live), row_of[k][source]))
        starts.append(connections + start)
        rows.append(row_of[k + 1][target[start]])
        layer_segment.append(layer_segment[-1] + len(start))
        survivors_before += layer.survivors
        connections += len(survivor)
    idle = np.ones(survivors_before, bool)
    idle[np.concatenate(survivors)] = False
    network = kernel_types.Network(
        _int32(*columns),
        _int32(*starts, [connections]),
        _int32(*rows),
        _int32(layer_segment),
        _int32(layer_row),
        np.array([layer.relu for layer in layers]),
        *_copied_inputs(useful[0]),
    )
    survivor = np.concatenate([*survivors, np.flatnonzero(idle)])
    return Connections(survivor, network)


def _number_rows(
    useful: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[int]]:
    """Returns the row of each input and unit, and each layer's first row.

    Units that are not useful have no row; their entries are meaningless.
    """
    inputs = len(useful[0])
    row_of, layer_row = [np.arange(inputs)], [inputs + 1]
    for units in useful[1:]:
        row_of.append(layer_row[-1] + np.cumsum(units) - 1)
        layer_row.append(layer_row[-1] + int(units.sum()))
    return row_of, layer_row


def _useful(layers: Sequence[Layer], live: np.ndarray) -> list[np.ndarray]:
    """Returns, per layer, bool: which inputs or units reach an output."""
    useful = [np.ones(layers[-1].mask.shape[1], bool)]
    for layer in reversed(layers):
        reaches = layer.mask[:, useful[0]].any(axis=1)
        useful.insert(0, np.asarray(reaches))
    useful[0] &= live
    return useful


def _layer_connections(
    layer: Layer, useful_inputs: np.ndarray, useful_units: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Returns survivor, source, target of connections; starts of segments."""
    useful = useful_inputs[:, None] & useful_units
    source, target = np.nonzero(layer.mask & useful)
    numbers = np.cumsum(layer.mask).reshape(layer.mask.shape) - 1
    survivor = numbers[source, target]
    inputs = int(useful_inputs.sum())
    units = max(int(useful_units.sum()), 1)
    blocks = min(
        -(-inputs // _ROWS_IN_BLOCK),
        len(source) // units // _MIN_CONNECTIONS_IN_SEGMENT,
    )
    # Each block has the same number of useful inputs.
    block = (np.cumsum(useful_inputs) - 1) * max(blocks, 1) // max(inputs, 1)
    block = block[source]
    if layer.has_bias:
        biased = np.flatnonzero(useful_units)
        source = np.append(source, np.full(len(biased), -1))
        target = np.append(target, biased)
        survivor = np.append(survivor, int(layer.mask.sum()) + biased)
        block = np.append(block, np.zeros(len(biased), int))
    order = np.lexsort((source, target, block))
    segment = (block * len(useful_units) + target)[order]
    start = np.flatnonzero(np.diff(segment, prepend=-1))
    return survivor[order], source[order], target[order], start


def _copied_inputs(useful: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns `Network.octet` and `Network.single`."""
    stop = len(useful) - len(useful) % _COPIED_TOGETHER
    octets = useful[:stop].reshape(-1, _COPIED_TOGETHER).any(axis=1)
    first = np.flatnonzero(octets) * _COPIED_TOGETHER
    return _int32(first), _int32(stop + np.flatnonzero(useful[stop:]))


def _int32(*arrays: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate(arrays).astype(np.int32)
