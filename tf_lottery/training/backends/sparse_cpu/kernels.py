"""Training steps of a sparse network, compiled by numba into one function.

A row of an array `[rows, LANES]` holds one input, or the outputs of one unit,
for LANES examples.

All parts are inlined before compilation, so LLVM sees one function without
calls. Only then does numba's cache return code that gives the same bits as a
fresh compilation. The function uses one thread and releases the GIL.
"""

import hashlib
import inspect
import math
from collections.abc import Callable
from types import ModuleType

import numba
import numpy as np

from tf_lottery.training.backends.sparse_cpu import kernel_types, simd
from tf_lottery.training.backends.sparse_cpu.kernel_types import (
    LANES,
    Batches,
    Buffers,
    Network,
    Parameters,
    Rule,
)
from tf_lottery.training.backends.sparse_cpu.simd import load, store

_TINY = np.float32(np.finfo(np.float32).tiny)
# Rows of `Buffers.scratch`.
_PEAK, _TOTAL, _SHARE = range(3)

_inlined = numba.njit(inline="always", error_model="numpy")


@_inlined
def _load_examples(
    network: Network, batches: Batches, step: int, first: int, buffers: Buffers
) -> None:
    """Copies a batch's examples into lanes, from number `first` on.

    Eight lanes are copied at a time: in the last group the last example is
    repeated. Lanes after it keep old examples. Both have gradient 0.
    """
    batch = batches.order.shape[1]
    filled = min(LANES, batch - first)
    for lane in range(LANES):
        i = min(first + lane, batch - 1)
        buffers.example[lane] = batches.order[step, i]
    for lane in range(0, filled, 8):
        for i in range(len(network.octet)):
            simd.copy_transposed(
                batches.x,
                buffers.example,
                lane,
                network.octet[i],
                buffers.output,
            )
    for i in range(len(network.single)):
        feature = network.single[i]
        for lane in range(filled):
            value = batches.x[buffers.example[lane], feature]
            buffers.output[feature, lane] = value


@_inlined
def _forward(network: Network, weight: np.ndarray, output: np.ndarray) -> None:
    """Computes the outputs of all units."""
    for layer in range(len(network.relu)):
        rows = network.layer_row[layer], network.layer_row[layer + 1]
        for row in range(rows[0], rows[1]):
            store(output, row, simd.zeros())
        for s in range(
            network.layer_segment[layer], network.layer_segment[layer + 1]
        ):
            total = load(output, network.row[s])
            for j in range(network.start[s], network.start[s + 1]):
                total = simd.add_scaled(
                    total, weight[j], load(output, network.column[j])
                )
            store(output, network.row[s], total)
        if network.relu[layer]:
            for row in range(rows[0], rows[1]):
                store(output, row, simd.relu(load(output, row)))


@_inlined
def _losses(
    network: Network, batches: Batches, first: int, buffers: Buffers
) -> None:
    """Computes softmax cross-entropy and its gradient by the logits.

    The gradient is that of the mean over the batch, and 0 in lanes without an
    example. An example is classified correctly if its label is the first of
    its largest logits.
    """
    output, delta, scratch = buffers.output, buffers.delta, buffers.scratch
    logits, stop = network.layer_row[-2], network.layer_row[-1]
    batch = batches.order.shape[1]
    filled = min(LANES, batch - first)
    share = np.float32(1) / np.float32(batch)
    for lane in range(LANES):
        scratch[_SHARE, lane] = share if lane < filled else np.float32(0)
    peak, total = load(output, logits), simd.zeros()
    for row in range(logits + 1, stop):
        peak = simd.maximum(peak, load(output, row))
    for row in range(logits, stop):
        power = simd.exponential(simd.subtract(load(output, row), peak))
        total = simd.add(total, power)
        store(delta, row, power)
    for row in range(logits, stop):
        probability = simd.divide(load(delta, row), total)
        store(delta, row, simd.multiply(probability, load(scratch, _SHARE)))
    store(scratch, _PEAK, peak)
    store(scratch, _TOTAL, total)
    for lane in range(filled):
        row = logits + batches.y[buffers.example[lane]]
        value = output[row, lane] - scratch[_PEAK, lane]
        buffers.losses[first + lane] = math.log(scratch[_TOTAL, lane]) - value
        delta[row, lane] -= share
        is_right = value == 0
        if is_right:
            for earlier in range(logits, row):
                if output[earlier, lane] == output[row, lane]:
                    is_right = False
        buffers.correct[first + lane] = is_right


@_inlined
def _backward(
    network: Network, parameters: Parameters, buffers: Buffers
) -> None:
    """Adds to the gradients of all connections' weights."""
    weight, gradient = parameters.weight, parameters.gradient
    output, delta, column = buffers.output, buffers.delta, network.column
    # Biases also add to the row of ones, where nothing reads the sum.
    for row in range(network.layer_row[0] - 1, network.layer_row[-2]):
        store(delta, row, simd.zeros())
    for layer in range(len(network.relu) - 1, -1, -1):
        if network.relu[layer]:
            for row in range(
                network.layer_row[layer], network.layer_row[layer + 1]
            ):
                slope = simd.where_positive(load(output, row), load(delta, row))
                store(delta, row, slope)
        for s in range(
            network.layer_segment[layer], network.layer_segment[layer + 1]
        ):
            slope = load(delta, network.row[s])
            start, stop = network.start[s], network.start[s + 1]
            fours = stop - (stop - start) % 4
            for j in range(start, fours, 4):
                simd.add_dots(
                    gradient,
                    j,
                    slope,
                    load(output, column[j]),
                    load(output, column[j + 1]),
                    load(output, column[j + 2]),
                    load(output, column[j + 3]),
                )
            for j in range(fours, stop):
                gradient[j] += simd.dot(slope, load(output, column[j]))
            if layer > 0:
                for j in range(start, stop):
                    total = load(delta, column[j])
                    total = simd.add_scaled(total, weight[j], slope)
                    store(delta, column[j], total)


@_inlined
def _adam(
    parameters: Parameters, rule: Rule, rate: np.float32, step: int
) -> None:
    """Takes Adam's step, as Keras does (Kingma & Ba 2015, before section 2.1).

    Differs: subnormal moments become 0, as XLA flushes them. CPUs are slow
    with such numbers, and a moment would stay subnormal for ever.
    """
    weight, gradient, first, second = parameters
    one, zero = np.float32(1), np.float32(0)
    power = np.float32(np.float64(rule.decay) ** step)
    power_2 = np.float32(np.float64(rule.decay_2) ** step)
    alpha = rate * math.sqrt(one - power_2) / (one - power)
    for j in range(len(weight)):
        slope = gradient[j]
        m = first[j] + (slope - first[j]) * rule.rest
        v = second[j] + (slope * slope - second[j]) * rule.rest_2
        m = zero if abs(m) < _TINY else m
        v = zero if abs(v) < _TINY else v
        first[j] = m
        second[j] = v
        weight[j] -= m * alpha / (math.sqrt(v) + rule.epsilon)
        gradient[j] = zero


@_inlined
def _sgd(parameters: Parameters, rule: Rule, rate: np.float32) -> None:
    """Takes SGD's step, as Keras does; without momentum, `decay` is 0."""
    weight, gradient, first = parameters[:3]
    for j in range(len(weight)):
        move = gradient[j] * rate
        m = first[j] * rule.decay - move
        first[j] = m
        weight[j] += m * rule.decay - move if rule.nesterov else m
        gradient[j] = np.float32(0)


def _compiled(sources: str) -> Callable[..., float]:
    """Returns the kernel.

    Numba's cache identifies a function by its file and its closure, so the
    closure holds a digest of the other files that the kernel is made of.
    """

    @numba.njit(nogil=True, cache=True, error_model="numpy")
    def run(
        network: Network,
        parameters: Parameters,
        rule: Rule,
        batches: Batches,
        buffers: Buffers,
    ) -> float:
        """Takes training steps, or evaluates; returns the mean loss."""
        sources  # noqa: B018
        steps, batch = batches.order.shape
        learns = len(batches.rates) > 0
        total = 0.0
        for step in range(steps):
            for first in range(0, batch, LANES):
                _load_examples(network, batches, step, first, buffers)
                _forward(network, parameters.weight, buffers.output)
                _losses(network, batches, first, buffers)
                if learns:
                    _backward(network, parameters, buffers)
            for i in range(batch):
                total += buffers.losses[i]
                buffers.right[0] += buffers.correct[i]
            if learns and rule.adam:
                taken = batches.iteration + step + 1
                _adam(parameters, rule, batches.rates[step], taken)
            elif learns:
                _sgd(parameters, rule, batches.rates[step])
        return total / (steps * batch)

    return run


def _digest(*modules: ModuleType) -> str:
    sources = "".join(inspect.getsource(module) for module in modules)
    return hashlib.sha256(sources.encode()).hexdigest()


run = _compiled(_digest(kernel_types, simd))
