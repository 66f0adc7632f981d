"""The network that is left when dead channels are gone."""

import collections
import dataclasses
from typing import Any

import keras
import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.export import source as sources
from tf_lottery.export.shrinking import channel_rules
from tf_lottery.export.shrinking.graph import Graph, channels, trace

ALONE = "a layer keeps one unit at least"


@dataclasses.dataclass(frozen=True)
class Shrunk:
    """A network made smaller, and what stood in the way of more.

    Attributes:
        model: An ordinary Keras model of stock layers. At inference it gives
            the outputs of the original, up to rounding.
        before: Weights of the original, those at zero included.
        after: Weights of `model`.
        units: Name of layer to its units, before and after.
        stayed: Lines that say which units nobody needs and why they stayed.
    """

    model: keras.Model
    before: int
    after: int
    units: dict[str, tuple[int, int]]
    stayed: tuple[str, ...]


def shrink(
    source: sources.Source, rewound: bool = False, skip_inputs: bool = False
) -> Shrunk:
    """Returns the same network without units that do nothing.

    Units and filters that the mask has left without inputs are constant, and
    their constants go into the biases of the layers that read them, through
    activations, BatchNorm (by its inference statistics), pooling, Flatten,
    Dropout, residual adds and concatenations. Units that nobody reads go too.
    What of this cannot be
    done exactly is not done, and `stayed` says so: a constant that a
    convolution pads with zeros is none at the border; a unit that is added to
    a living one stays.

    For inference only: in training, a unit without inputs has a bias that
    still learns, and BatchNorm has other statistics.

    Args:
        source: A ticket, or a Sequential or functional Keras model, nested
            and with shared layers or not. A nested model that is subclassed,
            or called with `training=True`, stays whole.
        rewound: Of a ticket, take the weights it restarts from and not the
            trained ones.
        skip_inputs: Take from the input of a Dense layer what it reads, where
            it does not read all: fewer weights still, but gathering them
            costs more time than it saves in batches (`benchmarks/export.py`).

    Raises:
        ValueError: The model is subclassed, or the ticket holds no trained
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
    original = sources.plain(source, rewound)
    if not getattr(original, "inputs", None):
        raise UserError(
            f"Model {original.name!r} is subclassed "
            f"({type(original).__qualname__}) and has no graph of layers to "
            "shrink. Export it whole, or call it on a keras.Input and shrink "
            "keras.Model(inputs, outputs)."
        )
    graph = trace(original)
    _name(graph)
    kind = [channel_rules.rule_of(call, graph) for call in graph.calls]
    known = _constants(graph, kind)
    kept = _kept(graph, kind, known)
    model = _rebuilt(original, graph, kind, kept, known, skip_inputs)
    units, stayed = {}, []
    for call in graph.calls:
        if not getattr(call.operation, "weights", ()):
            continue
        why = kept[id(call.outputs[0])]
        units[call.operation.name] = (len(why), int((why != "").sum()))
        counts = collections.Counter(
            why[(why != "") & (why != channel_rules.READ)]
        )
        stayed += [
            f"{number} of {call.operation.name!r}: {reason}."
            for reason, number in sorted(counts.items())
        ]
    return Shrunk(
        model,
        original.count_params(),
        model.count_params(),
        units,
        tuple(stayed),
    )


def _constants(
    graph: Graph, kind: list[channel_rules.ChannelRule]
) -> channel_rules.Known:
    known = {
        id(tensor): np.full(channels(tensor), np.nan) for tensor in graph.inputs
    }
    for call, what in zip(graph.calls, kind, strict=True):
        values = what.constant_channels(call, known)
        for tensor, value in zip(call.outputs, values, strict=True):
            known[id(tensor)] = value
    return known


def _kept(
    graph: Graph,
    kind: list[channel_rules.ChannelRule],
    known: channel_rules.Known,
) -> dict[int, np.ndarray]:
    """Returns why channels stay: the least that satisfies every demand."""
    kept = {key: np.full(len(v), "", object) for key, v in known.items()}
    for tensor in (*graph.inputs, *graph.outputs):
        kept[id(tensor)][:] = channel_rules.READ
    weighted = [
        call.outputs[0]
        for call, what in zip(graph.calls, kind, strict=True)
        if isinstance(what, channel_rules.Weighted)
    ]
    while True:
        _settle(graph, kind, known, kept)
        empty = [t for t in weighted if not (kept[id(t)] != "").any()]
        if not empty:
            return kept
        for tensor in empty:
            kept[id(tensor)][0] = ALONE


def _settle(
    graph: Graph,
    kind: list[channel_rules.ChannelRule],
    known: channel_rules.Known,
    kept: dict[int, np.ndarray],
) -> None:
    changed = True
    while changed:
        changed = False
        for call, what in reversed(list(zip(graph.calls, kind, strict=True))):
            for tensor, why in what.required_channels(call, kept, known):
                there = kept[id(tensor)]
                new = (there == "") & (why != "")
                new |= (why == channel_rules.READ) & (
                    there != channel_rules.READ
                )
                there[new] = why[new]
                changed |= bool(new.any())


def _rebuilt(
    original: keras.Model,
    graph: Graph,
    kind: list[channel_rules.ChannelRule],
    kept: channel_rules.Kept,
    known: channel_rules.Known,
    skip_inputs: bool,
) -> keras.Model:
    inputs = [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name)
        for t in graph.inputs
    ]
    new = {id(t): i for t, i in zip(graph.inputs, inputs, strict=True)}
    made: dict[int, Any] = {}
    for call, what in zip(graph.calls, kind, strict=True):
        layer, weights = what.rebuilt_layer(call, kept, known)
        layer = made.setdefault(id(call.operation), layer)
        arguments, options = keras.tree.map_structure(
            lambda value: new.get(id(value), value),
            (call.arguments, call.options),
        )
        if skip_inputs and isinstance(what, channel_rules.Weighted):
            arguments, weights = _selected(arguments, weights)
        results = keras.tree.flatten(layer(*arguments, **options))
        if layer is not call.operation and weights:
            layer.set_weights(weights)
        for tensor, value in zip(call.outputs, results, strict=True):
            new[id(tensor)] = value
    outputs = [new[id(tensor)] for tensor in graph.outputs]
    # As the original takes and returns them: one tensor, a list, a dict.
    return keras.Model(
        keras.tree.pack_sequence_as(graph.given, inputs),
        keras.tree.pack_sequence_as(graph.returned, outputs),
        name=original.name,
    )


def _selected(
    arguments: tuple[Any, ...], weights: list[np.ndarray]
) -> tuple[tuple[Any, ...], list[np.ndarray]]:
    """Returns a Dense layer's input and weights without what it skips."""
    (tensor,), (kernel, *bias) = arguments, weights
    if kernel.ndim > 2:
        return arguments, weights
    read = np.flatnonzero(kernel.any(axis=1))
    if len(read) == len(kernel) or not len(read):
        return arguments, weights
    taken = keras.ops.take(tensor, read.tolist(), axis=-1)
    return (taken,), [kernel[read], *bias]


def _name(graph: Graph) -> None:
    """Gives every operation a name of its own: nested models share theirs."""
    named: dict[str, int] = {}
    for call in graph.calls:
        operation, base, count = call.operation, call.operation.name, 0
        while named.setdefault(operation.name, id(operation)) != id(operation):
            count += 1
            operation.name = f"{base}_{count}"
