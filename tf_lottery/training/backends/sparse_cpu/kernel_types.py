"""Arguments of the compiled kernel: network, weights, optimizer, batches."""

from typing import NamedTuple

import numpy as np

LANES = 64
"""Examples per row: eight AVX2 registers, half of those a CPU has.

A batch is processed in groups of this size, so 60 examples take as long as 64,
and 65 as long as 128.
"""


class Network(NamedTuple):
    """The surviving connections of a network, in a form like CSR.

    A row holds one input or one unit. Rows are numbered: first the inputs,
    then a row of ones, which biases read, then the units layer by layer. A
    segment is a run of connections into one unit.

    Attributes:
        column: int32 `[connections]`, the row that each connection reads.
        start: int32 `[segments + 1]`, first connection of each segment.
        row: int32 `[segments]`, the row of the unit that a segment adds to.
        layer_segment: int32 `[layers + 1]`, first segment of each layer.
        layer_row: int32 `[layers + 1]`, first row of each layer's units.
        relu: bool `[layers]`, whether the layer's activation is ReLU.
        octet: int32, first of each eight consecutive inputs that are copied
            together.
        single: int32, the inputs that are copied one by one.
    """

    column: np.ndarray
    start: np.ndarray
    row: np.ndarray
    layer_segment: np.ndarray
    layer_row: np.ndarray
    relu: np.ndarray
    octet: np.ndarray
    single: np.ndarray


class Parameters(NamedTuple):
    """What training changes; all float32 `[connections + idle weights]`.

    Idle weights are survivors whose gradient is always zero; the optimizer
    may still change them, by momentum.

    Attributes:
        weight: The weights.
        gradient: Zeros before and after every step.
        first: Adam's first moments, or SGD's momentum.
        second: Adam's second moments.
    """

    weight: np.ndarray
    gradient: np.ndarray
    first: np.ndarray
    second: np.ndarray


class Rule(NamedTuple):
    """Settings of the optimizer's step.

    Attributes:
        adam: True for Adam, False for SGD.
        decay: Adam's beta_1, or SGD's momentum.
        decay_2: Adam's beta_2.
        rest: 1 - beta_1, computed in float64 and rounded once.
        rest_2: 1 - beta_2, likewise.
        epsilon: Adam's epsilon, > 0.
        nesterov: Whether SGD uses Nesterov momentum.
    """

    adam: bool
    decay: np.float32
    decay_2: np.float32
    rest: np.float32
    rest_2: np.float32
    epsilon: np.float32
    nesterov: bool


class Batches(NamedTuple):
    """The examples to train or evaluate on. Arrays are read-only.

    Attributes:
        x: float32 `[examples, inputs]`.
        y: int32 `[examples]`, labels.
        order: int32 `[steps, batch]`, the examples of each step.
        rates: float32 `[steps]`, the learning rate of each step; `[0]` to
            evaluate only.
        iteration: Number of steps taken before.
    """

    x: np.ndarray
    y: np.ndarray
    order: np.ndarray
    rates: np.ndarray
    iteration: int


class Buffers(NamedTuple):
    """Memory for intermediate results.

    Attributes:
        output: float32 `[rows, LANES]`; the row of ones holds ones.
        delta: float32 `[rows, LANES]`, gradient of the loss with respect to
            `output`.
        scratch: float32 `[3, LANES]`.
        example: int64 `[LANES]`, the example in each lane.
        losses: float32 `[batch]`, of the last step.
        correct: bool `[batch]`, whether each example of the last step was
            classified correctly.
        right: int64 `[1]`, number of correct examples in all steps.
    """

    output: np.ndarray
    delta: np.ndarray
    scratch: np.ndarray
    example: np.ndarray
    losses: np.ndarray
    correct: np.ndarray
    right: np.ndarray


def buffers(network: Network, batch: int) -> Buffers:
    """Returns new buffers.

    Args:
        network: The connections.
        batch: Number of examples in a batch.
    """
    rows = int(network.layer_row[-1])
    output = _aligned_zeros(rows)
    output[network.layer_row[0] - 1] = 1
    return Buffers(
        output,
        _aligned_zeros(rows),
        _aligned_zeros(3),
        np.zeros(LANES, np.int64),
        np.zeros(batch, np.float32),
        np.zeros(batch, bool),
        np.zeros(1, np.int64),
    )


def _aligned_zeros(rows: int) -> np.ndarray:
    """Returns float32 zeros `[rows, LANES]`, aligned to a cache line."""
    line = 64
    raw = np.zeros(rows * LANES * 4 + line, np.uint8)
    first = -raw.ctypes.data % line
    usable = raw[first : first + rows * LANES * 4]
    return usable.view(np.float32).reshape(rows, LANES)
