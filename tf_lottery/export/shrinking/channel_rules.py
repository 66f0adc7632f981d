"""How layers map input channels to output channels at inference.

`RULES` maps layer types to rules. Layers without a rule are `Opaque`: they
read all channels of their inputs.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tf_lottery.export.shrinking.graph import Call, Graph, Tensor, channels

L = keras.layers

READ = "it is read"
"""The reason to keep a channel that a layer needs."""

Arrays = list[np.ndarray]

Required = tuple[Tensor, np.ndarray]
"""A tensor, and its reasons `[channels]` to keep a channel."""

ELEMENTWISE = (
    L.Dropout,
    L.SpatialDropout1D,
    L.SpatialDropout2D,
    L.SpatialDropout3D,
    L.GaussianNoise,
    L.GaussianDropout,
    L.Identity,
    L.ReLU,
    L.LeakyReLU,
    L.ELU,
)
SPATIAL = tuple(
    getattr(L, f"{name}{n}D")
    for n in (1, 2, 3)
    for name in (
        "MaxPooling",
        "AveragePooling",
        "GlobalMaxPooling",
        "GlobalAveragePooling",
        "Cropping",
        "UpSampling",
    )
)
PADDING = (L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D)
MERGING = (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum)
WEIGHTED = (L.Dense, L.Conv1D, L.Conv2D, L.Conv3D)
ACTIVATIONS = (
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "hard_tanh",
    "softplus",
    "softsign",
    "mish",
    "exponential",
)
"""Activations whose output depends only on the input at the same position."""


@dataclasses.dataclass(frozen=True)
class ChannelState:
    """The channels of all tensors: constants, and the reasons to keep them.

    Attributes:
        constants: Tensor id to float64 `[channels]`; nan where it varies.
        reasons: Tensor id to object `[channels]`: why a channel stays; "" to
            remove it.
    """

    constants: dict[int, np.ndarray]
    reasons: dict[int, np.ndarray]

    def constant(self, tensor: Tensor) -> np.ndarray:
        """Returns the constants of a tensor's channels."""
        return self.constants[id(tensor)]

    def reason(self, tensor: Tensor) -> np.ndarray:
        """Returns the reasons to keep a tensor's channels."""
        return self.reasons[id(tensor)]

    def kept(self, tensor: Tensor) -> np.ndarray:
        """Returns bool `[channels]`: whether a channel stays."""
        return self.reasons[id(tensor)] != ""


class ChannelRule(abc.ABC):
    """How one layer maps input channels to output channels."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @abc.abstractmethod
    def constants(self, call: Call, state: ChannelState) -> Arrays:
        """Returns the constants of each output."""

    @abc.abstractmethod
    def required(self, call: Call, state: ChannelState) -> Iterator[Required]:
        """Yields the channels to keep, from those that are kept so far."""

    def rebuilt(self, call: Call, state: ChannelState) -> tuple[Any, Arrays]:
        """Returns a layer for the kept channels, and weights if it is new."""
        return self.layer, []


class Opaque(ChannelRule):
    """Any output may depend on any input channel: all of them stay."""

    def __init__(self, layer: Any, reason: str) -> None:
        super().__init__(layer)
        self.reason = reason

    def constants(self, call: Call, state: ChannelState) -> Arrays:
        """Returns that no output is known to be constant."""
        return [np.full(channels(tensor), np.nan) for tensor in call.outputs]

    def required(self, call: Call, state: ChannelState) -> Iterator[Required]:
        """Yields all channels."""
        for tensor in (*call.inputs, *call.outputs):
            yield tensor, _read_or(self.reason, state.constant(tensor))


class Aligned(ChannelRule):
    """Output channel i depends only on channel i of each input."""

    def constants(self, call: Call, state: ChannelState) -> Arrays:
        """Returns the outputs of channels whose inputs are all constant."""
        inputs = [state.constant(tensor) for tensor in call.inputs]
        constant = np.logical_and.reduce([~np.isnan(c) for c in inputs])
        if isinstance(self.layer, PADDING):
            constant &= inputs[0] == 0
        if isinstance(self.layer, (*SPATIAL, *PADDING)):
            return [np.where(constant, inputs[0], np.nan)]
        shape = (*[1] * (len(call.outputs[0].shape) - 1), len(constant))
        tensors = [
            np.where(constant, array, 0).astype("float32").reshape(shape)
            for array in inputs
        ]
        is_merge = isinstance(self.layer, MERGING)
        value = self.layer(tensors if is_merge else tensors[0])
        value = keras.ops.convert_to_numpy(value).astype("float64").ravel()
        return [np.where(constant & np.isfinite(value), value, np.nan)]

    def required(self, call: Call, state: ChannelState) -> Iterator[Required]:
        """Yields channels that stay in any input or output for all of them."""
        tensors = (*call.inputs, *call.outputs)
        stays = np.logical_or.reduce([state.kept(t) for t in tensors])
        (output,) = call.outputs
        reason = state.reason(output)
        aligned = f"it stays in line with others at {self.layer.name!r}"
        for tensor in call.inputs:
            unread = ~np.isnan(state.constant(tensor)) & (reason == READ)
            stated = np.where(unread | (reason == ""), aligned, reason)
            yield tensor, np.where(stays, stated, "")
        yield output, np.where(stays, aligned, "")

    def rebuilt(self, call: Call, state: ChannelState) -> tuple[Any, Arrays]:
        """Returns the layer, and the kept channels of BatchNorm's weights."""
        if not isinstance(self.layer, L.BatchNormalization):
            return self.layer, []
        weights = self.layer.get_weights()
        keep = state.kept(call.outputs[0])
        layer = type(self.layer).from_config(self.layer.get_config())
        return layer, [array[keep] for array in weights]


class Flatten(ChannelRule):
    """Each position of a channel becomes an output channel."""

    def constants(self, call: Call, state: ChannelState) -> Arrays:
        """Returns the constants, repeated for each position."""
        (tensor,), (output,) = call.inputs, call.outputs
        positions = channels(output) // max(channels(tensor), 1)
        return [np.tile(state.constant(tensor), positions)]

    def required(self, call: Call, state: ChannelState) -> Iterator[Required]:
        """Yields channels that stay in one position for all positions."""
        (tensor,), (output,) = call.inputs, call.outputs
        by_position = state.reason(output).reshape(-1, channels(tensor))
        # "~" sorts last: READ takes precedence over other reasons.
        ranked = np.where(by_position == READ, "~", by_position).max(axis=0)
        yield tensor, np.where(ranked == "~", READ, ranked)
        stays = state.kept(tensor)
        reason = np.where(stays, "it stays with its channel", "")
        yield output, np.tile(reason, len(by_position))


class Concatenate(ChannelRule):
    """The channels of all inputs, one input after the other."""

    def constants(self, call: Call, state: ChannelState) -> Arrays:
        """Returns the constants of all inputs."""
        return [np.concatenate([state.constant(t) for t in call.inputs])]

    def required(self, call: Call, state: ChannelState) -> Iterator[Required]:
        """Yields the channels kept in inputs for the output, and back."""
        (output,), first = call.outputs, 0
        yield output, np.concatenate([state.reason(t) for t in call.inputs])
        for tensor in call.inputs:
            last = first + channels(tensor)
            yield tensor, state.reason(output)[first:last]
            first = last


class Weighted(ChannelRule):
    """Dense and convolutions: each output reads inputs through a kernel."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.kernel, *bias = layer.get_weights()
        taps = self.kernel.reshape(-1, *self.kernel.shape[-2:])
        # A constant input c adds c * sums to the outputs: [inputs, outputs].
        self.sums = taps.sum(axis=0, dtype="float64")
        self.reads = (taps != 0).any(axis=0)
        self.bias = bias[0] if bias else np.zeros(self.sums.shape[1])
        padding = getattr(layer, "padding", "valid")
        self.pads = len(taps) > 1 and padding != "valid"

    def constants(self, call: Call, state: ChannelState) -> Arrays:
        """Returns the outputs that read only constant inputs."""
        value = self._foldable(call, state)
        constant = ~(self.reads & np.isnan(value)[:, None]).any(axis=0)
        sums = self.bias + np.nan_to_num(value) @ self.sums
        output = self.layer.activation(sums.astype("float32"))
        output = keras.ops.convert_to_numpy(output).astype("float64")
        return [np.where(constant & np.isfinite(output), output, np.nan)]

    def required(self, call: Call, state: ChannelState) -> Iterator[Required]:
        """Yields inputs that kept outputs read and that cannot be folded."""
        (tensor,), (output,) = call.inputs, call.outputs
        reads = self.reads[:, state.kept(output)].any(axis=1)
        reads &= np.isnan(self._foldable(call, state))
        reason = _read_or(
            f"{self.layer.name!r} pads it with zeros, so that it is no "
            "constant at the border",
            state.constant(tensor),
        )
        yield tensor, np.where(reads, reason, "")

    def rebuilt(self, call: Call, state: ChannelState) -> tuple[Any, Arrays]:
        """Returns a smaller layer, with removed inputs folded into its bias."""
        (tensor,), (output,) = call.inputs, call.outputs
        rows, columns = state.kept(tensor), state.kept(output)
        foldable = np.nan_to_num(self._foldable(call, state))
        folded = np.where(rows, 0, foldable) @ self.sums
        bias = (self.bias + folded)[columns]
        config = self.layer.get_config()
        config["units" if "units" in config else "filters"] = int(columns.sum())
        config["use_bias"] = config["use_bias"] or bool(bias.any())
        kernel = self.kernel[..., rows, :][..., columns]
        biases = [bias] if config["use_bias"] else []
        return type(self.layer).from_config(config), [kernel, *biases]

    def _foldable(self, call: Call, state: ChannelState) -> np.ndarray:
        """Returns inputs that are constant at the border too, else nan."""
        value = state.constant(call.inputs[0])
        return np.where(value == 0, value, np.nan) if self.pads else value


def _is_elementwise(call: Call) -> bool:
    known = [getattr(keras.activations, name) for name in ACTIVATIONS]
    return call.operation.activation in known


def _is_dense(call: Call) -> bool:
    return getattr(call.operation, "groups", 1) == 1 and _is_elementwise(call)


def _is_last_axis(call: Call) -> bool:
    return call.operation.axis in (-1, len(call.inputs[0].shape) - 1)


def _is_equal_shapes(call: Call) -> bool:
    return len({tensor.shape for tensor in call.inputs}) == 1


RULES: dict[type, tuple[type[ChannelRule], Callable[[Call], bool]]] = {
    **dict.fromkeys(WEIGHTED, (Weighted, _is_dense)),
    **dict.fromkeys(
        (*ELEMENTWISE, *SPATIAL, *PADDING), (Aligned, lambda call: True)
    ),
    **dict.fromkeys(MERGING, (Aligned, _is_equal_shapes)),
    L.Activation: (Aligned, _is_elementwise),
    L.BatchNormalization: (Aligned, _is_last_axis),
    L.Flatten: (Flatten, lambda call: channels(call.outputs[0]) > 0),
    L.Concatenate: (Concatenate, _is_last_axis),
}
"""By layer type: the rule, and the condition on a call for it to apply."""


def rule_of(call: Call, graph: Graph) -> ChannelRule:
    """Returns the rule of a call.

    Args:
        call: A call of the graph.
        graph: All calls, to find layers that are called more than once.
    """
    layer = call.operation
    name = f"{getattr(layer, 'name', '?')!r} ({type(layer).__name__})"
    if isinstance(layer, keras.Model):
        return Opaque(layer, f"{name} is a model that is called as a whole")
    times = graph.times(layer)
    if times > 1 and getattr(layer, "weights", []):
        return Opaque(layer, f"{name} is called {times} times")
    if type(layer) in RULES and _is_simple(call):
        rule, applies = RULES[type(layer)]
        if applies(call):
            return rule(layer)
    return Opaque(layer, f"{name} may use it in any way")


def _is_simple(call: Call) -> bool:
    """Returns whether a call has one output and no options."""
    # Keras writes `training=False` into configurations where it was not given.
    options = call.options.keys() - {"training"} or call.options.get("training")
    data_format = getattr(call.operation, "data_format", "channels_last")
    is_channels_last = data_format == "channels_last"
    return not options and len(call.outputs) == 1 and is_channels_last


def _read_or(reason: str, constants: np.ndarray) -> np.ndarray:
    """Returns READ for channels that vary, `reason` for constant ones."""
    return np.where(np.isnan(constants), READ, reason).astype(object)
