"""This module knows what the compiled kernel works on."""

from typing import NamedTuple

import numpy as np

LANES = 64
"""Examples side by side in a row: eight AVX2 registers, half of all there are.

Whole batches of it are the cheapest: 60 cost what 64 do, 65 what 128 do.
"""


class Network(NamedTuple):
    """What is connected to what.

    Rows are numbered: the inputs, the row of ones, which biases read, and the
    units layer by layer. A segment is a run of connections that lead to one
    unit.

    Attributes:
        column: int32 `[connections]`, the row that each one reads.
        start: int32 `[segments + 1]`, where each segment's connections start.
        row: int32 `[segments]`, the unit that each segment leads to.
        layer_segment: int32 `[layers + 1]`, where each layer's segments start.
        layer_row: int32 `[layers + 1]`, where each layer's rows start.
        rectified: bool `[layers]`, whether its units are rectified.
        block: int32, the first of every eight inputs that are read together.
        single: int32, the inputs that are read one by one.
    """

    column: np.ndarray
    start: np.ndarray
    row: np.ndarray
    layer_segment: np.ndarray
    layer_row: np.ndarray
    rectified: np.ndarray
    block: np.ndarray
    single: np.ndarray


class Parameters(NamedTuple):
    """What training changes, all float32 `[connections or more]`.

    Those beyond the connections have a gradient of zero.

    Attributes:
        weight: The weights.
        gradient: Zeros, before and after.
        first: Adam's first moments, or SGD's momentum.
        second: Adam's second moments.
    """

    weight: np.ndarray
    gradient: np.ndarray
    first: np.ndarray
    second: np.ndarray


class Rule(NamedTuple):
    """The optimizer's step.

    Attributes:
        adam: Whether it is Adam's; else it is SGD's.
        decay: Adam's beta_1, or SGD's momentum.
        decay_2: Adam's beta_2.
        rest: 1 - beta_1, rounded once.
        rest_2: 1 - beta_2, rounded once.
        epsilon: Adam's.
        nesterov: Whether SGD's momentum is Nesterov's.
    """

    adam: bool
    decay: np.float32
    decay_2: np.float32
    rest: np.float32
    rest_2: np.float32
    epsilon: np.float32
    nesterov: bool


class Batches(NamedTuple):
    """What is trained or evaluated on. Arrays are read-only.

    Attributes:
        x: float32 `[examples, inputs]`.
        y: int32 `[examples]`, labels.
        order: int32 `[steps, batch]`, the examples of each step.
        rates: float32 `[steps]`, the learning rate of each step; of length 0,
            nothing is learned.
        iteration: Steps taken before.
    """

    x: np.ndarray
    y: np.ndarray
    order: np.ndarray
    rates: np.ndarray
    iteration: int


class Buffers(NamedTuple):
    """Where intermediate results lie.

    Attributes:
        output: float32 `[rows, LANES]`; the row of ones holds ones.
        delta: float32 `[rows, LANES]`, the loss's gradient by output.
        scratch: float32 `[3, LANES]`.
        example: int64 `[LANES]`, the example in each lane.
        losses: float32 `[batch]`, of the last step.
        correct: bool `[batch]`, whether the last step's examples were
            classified right.
        right: int64 `[1]`, how many examples of all steps were.
    """

    output: np.ndarray
    delta: np.ndarray
    scratch: np.ndarray
    example: np.ndarray
    losses: np.ndarray
    correct: np.ndarray
    right: np.ndarray


def buffers(network: Network, batch: int) -> Buffers:
    """Returns buffers for a network and a size of batch."""
    rows = int(network.layer_row[-1])
    output = _rows(rows)
    output[network.layer_row[0] - 1] = 1
    return Buffers(
        output,
        _rows(rows),
        _rows(3),
        np.zeros(LANES, np.int64),
        np.zeros(batch, np.float32),
        np.zeros(batch, bool),
        np.zeros(1, np.int64),
    )


def _rows(count: int) -> np.ndarray:
    """Returns zeros that begin where a cache line does."""
    line = 64
    raw = np.zeros(count * LANES * 4 + line, np.uint8)
    first = -raw.ctypes.data % line
    usable = raw[first : first + count * LANES * 4]
    return usable.view(np.float32).reshape(count, LANES)
