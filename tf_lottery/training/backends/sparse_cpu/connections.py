"""This module knows in which order the connections of a network are taken."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tf_lottery.training.backends.sparse_cpu import kernel_types

# While every unit reads from one block of inputs, the block stays in the first
# cache, which 128 rows of 256 bytes fill. A visit must pay for itself.
_ROWS_IN_BLOCK = 100
_CONNECTIONS_IN_SEGMENT = 12
_READ_TOGETHER = 8


@dataclasses.dataclass(frozen=True)
class Layer:
    """A fully connected layer.

    Attributes:
        mask: bool `[inputs, units]`, the weights that survive.
        has_bias: Whether its units have biases.
        rectified: Whether its units are rectified.
    """

    mask: np.ndarray
    has_bias: bool
    rectified: bool

    @property
    def survivors(self) -> int:
        """Weights and biases that are trained."""
        return int(self.mask.sum()) + self.has_bias * self.mask.shape[1]


class Wired(NamedTuple):
    """A network, and where its connections' weights stand.

    Attributes:
        survivor: int64 `[survivors]`, which survivor each connection is, and
            behind the connections the survivors that are none. Survivors are
            numbered layer by layer: a kernel's by flat index, then the biases.
        network: The connections.
    """

    survivor: np.ndarray
    network: kernel_types.Network


def wire(layers: Sequence[Layer], live: np.ndarray) -> Wired:
    """Returns the connections that can have a gradient, in their order.

    Left out are those that read an input which is always 0, and those into
    units from which no way leads to an output: their gradients are 0.

    Args:
        layers: The layers, from the inputs to the logits.
        live: bool `[inputs]`, False for inputs that are 0 in every example.
    """
    useful = _useful(layers, live)
    places, layer_row = _rows(useful)
    survivors, columns, starts, rows = [], [], [], []
    layer_segment, survivors_before, connections = [0], 0, 0
    for k, layer in enumerate(layers):
        survivor, source, target, start = _connections(
            layer, *useful[k : k + 2]
        )
        survivors.append(survivors_before + survivor)
        # A bias has source -1, and reads the row of ones.
        columns.append(np.where(source < 0, len(live), places[k][source]))
        starts.append(connections + start)
        rows.append(places[k + 1][target[start]])
        layer_segment.append(layer_segment[-1] + len(start))
        survivors_before += layer.survivors
        connections += len(survivor)
    rest = np.ones(survivors_before, bool)
    rest[np.concatenate(survivors)] = False
    network = kernel_types.Network(
        _int32(*columns),
        _int32(*starts, [connections]),
        _int32(*rows),
        _int32(layer_segment),
        _int32(layer_row),
        np.array([layer.rectified for layer in layers]),
        *_reading(useful[0]),
    )
    return Wired(np.concatenate([*survivors, np.flatnonzero(rest)]), network)


def _rows(useful: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Returns the rows of inputs and units, and where each layer's start.

    Inputs have the first rows, then come the row of ones and the units that
    take part; those that do not get the row of another.
    """
    inputs = len(useful[0])
    places, layer_row = [np.arange(inputs)], [inputs + 1]
    for units in useful[1:]:
        places.append(layer_row[-1] + np.cumsum(units) - 1)
        layer_row.append(layer_row[-1] + int(units.sum()))
    return places, layer_row


def _useful(layers: Sequence[Layer], live: np.ndarray) -> list[np.ndarray]:
    """Returns which inputs and units take part, layer by layer, as bools."""
    useful = [np.ones(layers[-1].mask.shape[1], bool)]
    for layer in reversed(layers):
        leads_on = layer.mask[:, useful[0]].any(axis=1)
        useful.insert(0, np.asarray(leads_on))
    useful[0] &= live
    return useful


def _connections(
    layer: Layer, taken: np.ndarray, given: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Returns survivor, source and target of connections; segments' starts.

    Args:
        layer: The layer.
        taken: bool `[inputs]`, those that take part.
        given: bool `[units]`, those that take part.
    """
    source, target = np.nonzero(layer.mask & taken[:, None] & given)
    numbers = np.cumsum(layer.mask).reshape(layer.mask.shape) - 1
    survivor = numbers[source, target]
    inputs, units = int(taken.sum()), max(int(given.sum()), 1)
    blocks = min(
        -(-inputs // _ROWS_IN_BLOCK),
        len(source) // units // _CONNECTIONS_IN_SEGMENT,
    )
    # Blocks hold equally many of the inputs that take part.
    block = (np.cumsum(taken) - 1) * max(blocks, 1) // max(inputs, 1)
    block = block[source]
    if layer.has_bias:
        biased = np.flatnonzero(given)
        source = np.append(source, np.full(len(biased), -1))
        target = np.append(target, biased)
        survivor = np.append(survivor, int(layer.mask.sum()) + biased)
        block = np.append(block, np.zeros(len(biased), int))
    order = np.lexsort((source, target, block))
    segment = (block * len(given) + target)[order]
    start = np.flatnonzero(np.diff(segment, prepend=-1))
    return survivor[order], source[order], target[order], start


def _reading(used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which eights of inputs hold used ones; used ones beyond them."""
    whole = len(used) - len(used) % _READ_TOGETHER
    eights = used[:whole].reshape(-1, _READ_TOGETHER).any(axis=1)
    block = np.flatnonzero(eights) * _READ_TOGETHER
    return _int32(block), _int32(whole + np.flatnonzero(used[whole:]))


def _int32(*arrays: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate(arrays).astype(np.int32)
