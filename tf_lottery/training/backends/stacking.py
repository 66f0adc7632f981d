"""How several networks lie side by side in one program.

Each arrangement packs one value per network into one structure, unpacks it
again, and maps a function of one network over all of them. What is trained is
the same function in every arrangement.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

# Public by its effect only: what `tf.vectorized_map` can vectorise.
from tensorflow.python.ops.parallel_for import pfor

from tf_lottery.core.errors import UserError


class Stacking(Protocol):
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


class Vmapped:
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


def _vectorize_bitcast() -> None:
    """Teaches `tf.vectorized_map` TensorFlow's `bitcast`.

    Keras' `argmax`, and with it every accuracy, calls it; TensorFlow 2.21 has
    no rule for it and would loop over the networks. Of types of one size it
    acts on every entry alone, so a leading axis changes nothing.
    """

    def converted(given: Any) -> Any:
        dtype = given.get_attr("type")
        stacked = given.stacked_input(0)
        if stacked.dtype.size != dtype.size:
            raise UserError("bitcast between types of two sizes")
        return pfor.wrap(tf.bitcast(stacked, dtype), True)

    try:
        pfor.RegisterPFor("Bitcast")(converted)
    except KeyError:  # a later TensorFlow has a rule of its own
        return


_vectorize_bitcast()
