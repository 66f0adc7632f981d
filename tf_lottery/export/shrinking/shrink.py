"""Removal of dead channels from a model."""

import collections
import dataclasses
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.export.exported_model import TicketOrModel, plain
from tf_lottery.export.shrinking import channel_rules
from tf_lottery.export.shrinking.channel_rules import ChannelRule, ChannelState
from tf_lottery.export.shrinking.graph import Graph, channels, trace

ALONE = "a layer keeps one unit at least"
"""The reason to keep the first unit of a layer that nothing reads."""


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """A smaller model, and the dead units that could not be removed.

    Attributes:
        model: A Keras model of stock layers. At inference it returns the
            outputs of the original, up to rounding.
        before: The number of weights of the original, zeros included.
        after: The number of weights of `model`.
        units: Layer name to its number of units before and after.
        stayed: A line for each layer and reason: how many dead units stayed,
            and why.
    """

    model: keras.Model
    before: int
    after: int
    units: dict[str, tuple[int, int]]
    stayed: tuple[str, ...]


def shrink(
    source: TicketOrModel, rewound: bool = False, skip_inputs: bool = False
) -> Shrunk:
    """Returns the same network without dead units.

    Units and filters whose inputs are all pruned are constant. Their constants
    are folded into the biases of the layers that read them, through
    activations, BatchNorm (with its inference statistics), pooling, Flatten,
    Dropout, residual adds and concatenations. Units that nothing reads are
    removed too. Only exact changes are made, and `stayed` lists the rest: a
    unit whose constant a convolution pads with zeros, which makes it vary at
    the border, and a unit that is added to a living one.

    For inference only: in training, a unit without inputs has a bias that
    still learns, and BatchNorm has other statistics.

    Args:
        source: A ticket, or a Sequential or functional Keras model, which may
            have nested models and shared layers. A nested model that is
            subclassed, or called with `training=True`, is not changed.
        rewound: Whether to take the weights that a ticket restarts from,
            mask ⊙ θk, instead of the trained ones.
        skip_inputs: Whether to gather from the input of a Dense layer only
            the features that it reads. This removes more weights, but
            gathering takes more time than it saves in batches
            (`benchmarks/export.py`).

    Raises:
        UserError: The model is subclassed, or the ticket has no trained
            weights.

    Example:
        >>> hidden = keras.layers.Dense(3, "relu", name="hidden")
        >>> head = keras.layers.Dense(1, name="head")
        >>> model = keras.Sequential([keras.Input((2,)), hidden, head])
        >>> for variable, value in zip(
        ...     model.weights,
        ...     ([[1, 0, 2], [0, 0, 0]], [0, 5, 0], [[1], [2], [0]], [3]),
        ... ):
        ...     _ = variable.assign(value)
        >>> shrunk = shrink(model)
        >>> shrunk.units, shrunk.before, shrunk.after
        ({'hidden': (3, 1), 'head': (1, 1)}, 13, 5)
        >>> float(shrunk.model.get_layer("head").bias[0])  # 3 + 2 * 5
        13.0
    """
    original = plain(source, rewound)
    if not getattr(original, "inputs", None):
        raise UserError(
            f"Model {original.name!r} is subclassed "
            f"({type(original).__qualname__}) and has no graph of layers to "
            "shrink. Export it whole, or call it on a keras.Input and shrink "
            "keras.Model(inputs, outputs)."
        )
    graph = trace(original)
    _make_names_unique(graph)
    rules = [channel_rules.rule_of(call, graph) for call in graph.calls]
    state = _constant_channels(graph, rules)
    _keep_required(graph, rules, state)
    model = _rebuilt(original, graph, rules, state, skip_inputs)
    units, stayed = {}, []
    for call in graph.calls:
        if not getattr(call.operation, "weights", ()):
            continue
        kept = state.kept(call.outputs[0])
        units[call.operation.name] = (len(kept), int(kept.sum()))
        reasons = collections.Counter(state.reason(call.outputs[0])[kept])
        del reasons[channel_rules.READ]
        stayed += [
            f"{number} of {call.operation.name!r}: {reason}."
            for reason, number in sorted(reasons.items())
        ]
    return Shrunk(
        model,
        original.count_params(),
        model.count_params(),
        units,
        tuple(stayed),
    )


def _constant_channels(graph: Graph, rules: list[ChannelRule]) -> ChannelState:
    """Returns the constants of all tensors, by a forward pass."""
    state = ChannelState({}, {})
    for tensor in graph.inputs:
        state.constants[id(tensor)] = np.full(channels(tensor), np.nan)
    for call, rule in zip(graph.calls, rules, strict=True):
        values = rule.constants(call, state)
        for tensor, value in zip(call.outputs, values, strict=True):
            state.constants[id(tensor)] = value
    return state


def _keep_required(
    graph: Graph, rules: list[ChannelRule], state: ChannelState
) -> None:
    """Sets the reasons of the fewest channels that the rules require."""
    for key, values in state.constants.items():
        state.reasons[key] = np.full(len(values), "", object)
    for tensor in (*graph.inputs, *graph.outputs):
        state.reason(tensor)[:] = channel_rules.READ
    weighted = [
        call.outputs[0]
        for call, rule in zip(graph.calls, rules, strict=True)
        if isinstance(rule, channel_rules.Weighted)
    ]
    while True:
        _propagate(graph, rules, state)
        empty = [tensor for tensor in weighted if not state.kept(tensor).any()]
        if not empty:
            return
        for tensor in empty:
            state.reason(tensor)[0] = ALONE


def _propagate(
    graph: Graph, rules: list[ChannelRule], state: ChannelState
) -> None:
    """Repeats backward passes until no rule requires another channel."""
    changed = True
    while changed:
        changed = False
        for call, rule in reversed(list(zip(graph.calls, rules, strict=True))):
            for tensor, required in rule.required(call, state):
                reason = state.reason(tensor)
                new = (reason == "") & (required != "")
                new |= (required == channel_rules.READ) & (
                    reason != channel_rules.READ
                )
                reason[new] = required[new]
                changed |= bool(new.any())


def _rebuilt(
    original: keras.Model,
    graph: Graph,
    rules: list[ChannelRule],
    state: ChannelState,
    skip_inputs: bool,
) -> keras.Model:
    inputs = [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name)
        for t in graph.inputs
    ]
    new = {id(t): i for t, i in zip(graph.inputs, inputs, strict=True)}
    layers: dict[int, Any] = {}
    for call, rule in zip(graph.calls, rules, strict=True):
        layer, weights = rule.rebuilt(call, state)
        layer = layers.setdefault(id(call.operation), layer)
        arguments, options = keras.tree.map_structure(
            lambda value: new.get(id(value), value),
            (call.arguments, call.options),
        )
        if skip_inputs and isinstance(rule, channel_rules.Weighted):
            arguments, weights = _selected(arguments, weights)
        results = keras.tree.flatten(layer(*arguments, **options))
        if layer is not call.operation and weights:
            layer.set_weights(weights)
        for tensor, value in zip(call.outputs, results, strict=True):
            new[id(tensor)] = value
    outputs = [new[id(tensor)] for tensor in graph.outputs]
    return keras.Model(
        keras.tree.pack_sequence_as(graph.input_structure, inputs),
        keras.tree.pack_sequence_as(graph.output_structure, outputs),
        name=original.name,
    )


def _selected(
    arguments: tuple[Any, ...], weights: list[np.ndarray]
) -> tuple[tuple[Any, ...], list[np.ndarray]]:
    """Returns a Dense layer's input and weights without unread features."""
    (tensor,), (kernel, *bias) = arguments, weights
    if kernel.ndim > 2:
        return arguments, weights
    read = np.flatnonzero(kernel.any(axis=1))
    if len(read) == len(kernel) or not len(read):
        return arguments, weights
    gathered = keras.ops.take(tensor, read.tolist(), axis=-1)
    return (gathered,), [kernel[read], *bias]


def _make_names_unique(graph: Graph) -> None:
    """Renames operations of different nested models that share a name."""
    ids: dict[str, int] = {}
    for call in graph.calls:
        operation, base, count = call.operation, call.operation.name, 0
        while ids.setdefault(operation.name, id(operation)) != id(operation):
            count += 1
            operation.name = f"{base}_{count}"
