"""What each kind of layer does to the channels it reads.

Everything here speaks of inference. What a layer is not known to do with its
channels is `Opaque`: it reads and keeps all of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tf_lottery.export.shrinking.graph import (
    Call,
    Graph,
    Tensor,
    channels,
)

L = keras.layers

READ = "it is read"
"""Why a channel stays, if all is as it should be."""

Known = Mapping[int, np.ndarray]
"""By tensor's id: float64 `[channels]`, the constants; nan where it varies."""

Kept = Mapping[int, np.ndarray]
"""By tensor's id: object `[channels]`, why a channel stays; "" if it goes."""

Required = tuple[Tensor, np.ndarray]
"""A tensor, and `[channels]` of reasons to keep."""

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
"""Those that make each output of the input in its place alone."""


class ChannelRule:
    """What is asked of a kind of layer; as it stands, it knows nothing."""

    def __init__(self, why: str = "") -> None:
        self.why = why

    def constant_channels(self, call: Call, known: Known) -> list[np.ndarray]:
        """Returns the constants of each output."""
        return [_varying(channels(tensor)) for tensor in call.outputs]

    def required_channels(
        self, call: Call, kept: Kept, known: Known
    ) -> Iterator[Required]:
        """Yields what must be kept, given what is kept already."""
        for tensor in (*call.inputs, *call.outputs):
            yield tensor, _reasons(known[id(tensor)], self.why)

    def rebuilt_layer(
        self, call: Call, kept: Kept, known: Known
    ) -> tuple[Any, list[np.ndarray]]:
        """Returns a layer for the channels kept, and its weights if new."""
        return call.operation, []


class Aligned(ChannelRule):
    """Output channel i depends on channel i of each input, and no other."""

    def constant_channels(self, call: Call, known: Known) -> list[np.ndarray]:
        """Returns what the layer makes of inputs that are all constant."""
        given = [known[id(tensor)] for tensor in call.inputs]
        both = np.logical_and.reduce([~np.isnan(array) for array in given])
        if isinstance(call.operation, PADDING):
            both &= given[0] == 0
        if isinstance(call.operation, (*SPATIAL, *PADDING)):
            return [np.where(both, given[0], np.nan)]
        shape = (*[1] * (len(call.outputs[0].shape) - 1), len(both))
        tensors = [
            np.where(both, array, 0).astype("float32").reshape(shape)
            for array in given
        ]
        merges = isinstance(call.operation, MERGING)
        value = call.operation(tensors if merges else tensors[0])
        value = keras.ops.convert_to_numpy(value).astype("float64").ravel()
        return [np.where(both & np.isfinite(value), value, np.nan)]

    def required_channels(
        self, call: Call, kept: Kept, known: Known
    ) -> Iterator[Required]:
        """Yields that a channel stays everywhere or nowhere."""
        tensors = (*call.inputs, *call.outputs)
        stays = np.logical_or.reduce([kept[id(t)] != "" for t in tensors])
        (out,) = call.outputs
        why = kept[id(out)]
        line = f"it stays in line with others at {call.operation.name!r}"
        for tensor in call.inputs:
            unread = ~np.isnan(known[id(tensor)]) & (why == READ)
            stated = np.where(unread | (why == ""), line, why)
            yield tensor, np.where(stays, stated, "")
        yield out, np.where(stays, line, "")

    def rebuilt_layer(
        self, call: Call, kept: Kept, known: Known
    ) -> tuple[Any, list[np.ndarray]]:
        """Returns the layer; of per-channel weights those kept."""
        keep = kept[id(call.outputs[0])] != ""
        weights: list[np.ndarray] = []
        if isinstance(call.operation, L.BatchNormalization):
            weights = [w[keep] for w in call.operation.get_weights()]
        if not weights:
            return call.operation, []
        layer = type(call.operation).from_config(call.operation.get_config())
        return layer, weights


class Flatten(ChannelRule):
    """Channels become as many features as they have places."""

    def constant_channels(self, call: Call, known: Known) -> list[np.ndarray]:
        """Returns the constants, one for each place."""
        (given,), (out,) = call.inputs, call.outputs
        places = channels(out) // max(channels(given), 1)
        return [np.tile(known[id(given)], places)]

    def required_channels(
        self, call: Call, kept: Kept, known: Known
    ) -> Iterator[Required]:
        """Yields that a channel stays in all places or in none."""
        (given,), (out,) = call.inputs, call.outputs
        places = kept[id(out)].reshape(-1, channels(given))
        by_rank = np.where(places == READ, "~", places).max(axis=0)
        yield given, np.where(by_rank == "~", READ, by_rank)
        line = np.where(kept[id(given)] != "", "it stays with its channel", "")
        yield out, np.tile(line, len(places))


class Concatenate(ChannelRule):
    """The channels of all inputs, one input after the other."""

    def constant_channels(self, call: Call, known: Known) -> list[np.ndarray]:
        """Returns the constants of all."""
        return [np.concatenate([known[id(t)] for t in call.inputs])]

    def required_channels(
        self, call: Call, kept: Kept, known: Known
    ) -> Iterator[Required]:
        """Yields what is kept, there and back."""
        (out,), first = call.outputs, 0
        yield out, np.concatenate([kept[id(t)] for t in call.inputs])
        for tensor in call.inputs:
            last = first + channels(tensor)
            yield tensor, kept[id(out)][first:last]
            first = last


class Weighted(ChannelRule):
    """Dense and convolutions: each output reads inputs through a kernel."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.kernel, *bias = layer.get_weights()
        taps = self.kernel.reshape(-1, *self.kernel.shape[-2:])
        # What a constant input adds to each output: [inputs, outputs].
        self.sums = taps.sum(axis=0, dtype="float64")
        self.reads = (taps != 0).any(axis=0)
        self.bias = bias[0] if bias else np.zeros(self.sums.shape[1])
        padding = getattr(layer, "padding", "valid")
        self.sees_border = len(taps) > 1 and padding != "valid"

    def constant_channels(self, call: Call, known: Known) -> list[np.ndarray]:
        """Returns the outputs whose every input is constant or not read."""
        value = self._foldable(call, known)
        constant = ~(self.reads & np.isnan(value)[:, None]).any(axis=0)
        sums = self.bias + np.nan_to_num(value) @ self.sums
        out = self.layer.activation(sums.astype("float32"))
        out = keras.ops.convert_to_numpy(out).astype("float64")
        return [np.where(constant & np.isfinite(out), out, np.nan)]

    def required_channels(
        self, call: Call, kept: Kept, known: Known
    ) -> Iterator[Required]:
        """Yields the inputs that outputs kept read and cannot fold."""
        (given,), (out,) = call.inputs, call.outputs
        reads = self.reads[:, kept[id(out)] != ""].any(axis=1)
        reads &= np.isnan(self._foldable(call, known))
        why = _reasons(
            known[id(given)],
            f"{self.layer.name!r} pads it with zeros, so that it is no "
            "constant at the border",
        )
        yield given, np.where(reads, why, "")

    def rebuilt_layer(
        self, call: Call, kept: Kept, known: Known
    ) -> tuple[Any, list[np.ndarray]]:
        """Returns the layer, what it no longer reads folded into its bias."""
        (given,), (out,) = call.inputs, call.outputs
        rows, columns = kept[id(given)] != "", kept[id(out)] != ""
        value = np.where(rows, 0, np.nan_to_num(self._foldable(call, known)))
        bias = (self.bias + value @ self.sums)[columns]
        config = self.layer.get_config()
        config["units" if "units" in config else "filters"] = int(columns.sum())
        config["use_bias"] = config["use_bias"] or bool(bias.any())
        kernel = self.kernel[..., rows, :][..., columns]
        biases = [bias] if config["use_bias"] else []
        return type(self.layer).from_config(config), [kernel, *biases]

    def _foldable(self, call: Call, known: Known) -> np.ndarray:
        """Returns constants of the input that are so at the border too."""
        value = known[id(call.inputs[0])]
        if self.sees_border:
            return np.where(value == 0, value, np.nan)
        return value


def rule_of(call: Call, graph: Graph) -> ChannelRule:
    """Returns what a call does to channels."""
    layer = call.operation
    name = f"{getattr(layer, 'name', '?')!r} ({type(layer).__name__})"
    if isinstance(layer, keras.Model):
        return ChannelRule(f"{name} is a model that is called as a whole")
    times = graph.times(layer)
    if times > 1 and getattr(layer, "weights", []):
        return ChannelRule(f"{name} is called {times} times")
    return _single(call) or ChannelRule(f"{name} may use it in any way")


def _single(call: Call) -> ChannelRule | None:
    layer = call.operation
    plain = getattr(layer, "data_format", "channels_last") == "channels_last"
    # Keras writes down `training=False` where nothing was said.
    options = call.options.keys() - {"training"} or call.options.get("training")
    if options or len(call.outputs) != 1 or not plain:
        return None
    cls, shapes = type(layer), [tensor.shape for tensor in call.inputs]
    rank = len(shapes[0]) if shapes else 0
    if cls in WEIGHTED and getattr(layer, "groups", 1) == 1:
        return Weighted(layer) if _separate(layer.activation) else None
    if cls in (*ELEMENTWISE, *SPATIAL, *PADDING):
        return Aligned()
    if cls is L.Activation and _separate(layer.activation):
        return Aligned()
    if cls is L.BatchNormalization and layer.axis in (-1, rank - 1):
        return Aligned()
    if cls in MERGING and len({*shapes}) == 1:
        return Aligned()
    if cls is L.Flatten and channels(call.outputs[0]):
        return Flatten()
    if cls is L.Concatenate and layer.axis in (-1, rank - 1):
        return Concatenate()
    return None


def _separate(activation: Any) -> bool:
    known = [getattr(keras.activations, name) for name in ACTIVATIONS]
    return activation in known


def _varying(size: int) -> np.ndarray:
    return np.full(size, np.nan)


def _reasons(known: np.ndarray, why: str) -> np.ndarray:
    """Returns READ for what varies, `why` for what is constant."""
    return np.where(np.isnan(known), READ, why).astype(object)
