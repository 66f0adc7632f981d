"""Batching several networks into one compiled program.

A stacking packs one value per network into one structure, unpacks it again,
and maps a function of one network over all of them. The mapped function is the
same in every stacking.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

# Private to TensorFlow: there is no public way to register a converter.
from tensorflow.python.ops.parallel_for import pfor


class Stacking(Protocol):
    """A way to keep the values of several networks in one structure."""

    name: str

    def pack(self, each: Sequence[Any]) -> Any:
        """Returns one structure for a structure of tensors per network."""

    def unpack(self, packed: Any) -> list[Any]:
        """Returns the structure of each network; undoes `pack`."""

    def map(self, function: Callable[..., Any], *packed: Any) -> Any:
        """Calls a function for every network and packs the results.

        Args:
            function: From one network's arguments to a structure of tensors;
                of a plain tuple, each item is packed separately.
            *packed: The arguments, packed.
        """


class Single:
    """One network, without packing."""

    name = "alone"

    def pack(self, each: Sequence[Any]) -> Any:
        """Returns the structure of the only network."""
        (only,) = each
        return only

    def unpack(self, packed: Any) -> list[Any]:
        """Returns a list of the only structure."""
        return [packed]

    def map(self, function: Callable[..., Any], *packed: Any) -> Any:
        """Returns the result of the function."""
        return function(*packed)


class Unrolled:
    """Networks one after the other in one program; works for any model."""

    name = "unrolled"

    def pack(self, each: Sequence[Any]) -> Any:
        """Returns a tuple of the structures."""
        return tuple(each)

    def unpack(self, packed: Any) -> list[Any]:
        """Returns a list of the structures."""
        return list(packed)

    def map(self, function: Callable[..., Any], *packed: Any) -> Any:
        """Returns a tuple of results, or of tuples of results."""
        results = [function(*each) for each in zip(*packed, strict=True)]
        if type(results[0]) is tuple:
            return tuple(zip(*results, strict=True))
        return tuple(results)


class Vmapped:
    """Networks along a leading axis of every tensor, `[networks, ...]`.

    Args:
        networks: Number of networks.
    """

    name = "vectorised"

    def __init__(self, networks: int) -> None:
        self._networks = networks

    def pack(self, each: Sequence[Any]) -> Any:
        """Returns the structure with every tensor stacked."""
        return tf.nest.map_structure(lambda *values: tf.stack(values), *each)

    def unpack(self, packed: Any) -> list[Any]:
        """Returns the structure of each network."""
        return [
            tf.nest.map_structure(lambda value, i=i: value[i], packed)
            for i in range(self._networks)
        ]

    def map(self, function: Callable[..., Any], *packed: Any) -> Any:
        """Returns the stacked results, computed by `tf.vectorized_map`."""
        return tf.vectorized_map(
            lambda arguments: function(*arguments),
            packed,
            fallback_to_while_loop=False,
        )


def _vectorize_bitcast() -> None:
    """Registers a converter for `tf.bitcast` with `tf.vectorized_map`.

    Keras' `argmax`, and so every accuracy, calls `bitcast`. TensorFlow 2.21
    has no converter for it and would loop over the networks. Between types of
    one size it acts on each entry separately, so a leading axis changes
    nothing.
    """

    def convert(operation: Any) -> Any:
        dtype = operation.get_attr("type")
        stacked = operation.stacked_input(0)
        if stacked.dtype.size != dtype.size:
            raise ValueError("bitcast between types of different sizes")
        return pfor.wrap(tf.bitcast(stacked, dtype), True)

    try:
        pfor.RegisterPFor("Bitcast")(convert)
    except KeyError:  # a later TensorFlow registers its own
        return


_vectorize_bitcast()
