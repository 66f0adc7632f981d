"""This module knows how networks lie side by side in one program.

Each arrangement packs one value per network into one structure, unpacks it
again, and maps a function of one network over all of them. What is trained is
the same function in every arrangement.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

PerExample = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Arrangement(Protocol):
    """How the values of several networks make one structure."""

    name: str

    def pack(self, each: Sequence[Any]) -> Any:
        """Returns one structure of the networks' structures of tensors."""

    def unpack(self, packed: Any) -> list[Any]:
        """Returns the structure of each network."""

    def map(self, function: Callable[..., Any], *packed: Any) -> Any:
        """Returns the function's packed results over all networks.

        Of a function that returns a tuple, each part is packed by itself.
        """

    def examples(self, function: PerExample, y: tf.Tensor, outputs: Any) -> Any:
        """Returns, packed, what a function says of each example.

        Args:
            function: From targets and outputs to `[examples]`.
            y: Targets, which all networks share.
            outputs: Each network's outputs, packed.
        """


class Single:
    """One network, as it is."""

    name = "alone"

    def pack(self, each: Sequence[Any]) -> Any:
        """Returns the only one."""
        (only,) = each
        return only

    def unpack(self, packed: Any) -> list[Any]:
        """Returns the only one."""
        return [packed]

    def map(self, function: Callable[..., Any], *packed: Any) -> Any:
        """Returns the function's result."""
        return function(*packed)

    def examples(self, function: PerExample, y: tf.Tensor, outputs: Any) -> Any:
        """Returns the function's result, `[examples]`."""
        return function(y, outputs)


class Unrolled:
    """Networks one after the other in one program, whatever they hold."""

    name = "unrolled"

    def pack(self, each: Sequence[Any]) -> Any:
        """Returns them as a tuple."""
        return tuple(each)

    def unpack(self, packed: Any) -> list[Any]:
        """Returns them as a list."""
        return list(packed)

    def map(self, function: Callable[..., Any], *packed: Any) -> Any:
        """Returns the function's results as a tuple, or as a tuple of them."""
        results = [function(*each) for each in zip(*packed, strict=True)]
        if type(results[0]) is tuple:
            return tuple(zip(*results, strict=True))
        return tuple(results)

    def examples(self, function: PerExample, y: tf.Tensor, outputs: Any) -> Any:
        """Returns the function's results, a tuple of `[examples]`."""
        return tuple(function(y, each) for each in outputs)


class Vectorised:
    """Networks along a leading axis of every tensor, `[networks, ...]`.

    Args:
        networks: How many.
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
        """Returns the function's results, computed for all at once."""
        return tf.vectorized_map(
            lambda arguments: function(*arguments),
            packed,
            fallback_to_while_loop=False,
        )

    def examples(self, function: PerExample, y: tf.Tensor, outputs: Any) -> Any:
        """Returns the function's results, `[networks, examples]`."""
        networks, count, *rest = outputs.shape
        flat = tf.reshape(outputs, [networks * count, *rest])
        repeated = tf.tile(y, [networks, *([1] * (y.shape.rank - 1))])
        return tf.reshape(function(repeated, flat), [networks, count])
