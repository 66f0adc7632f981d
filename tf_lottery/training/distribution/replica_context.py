"""This module knows what lets a model train on the parts of a batch.

Each replica of a `tf.distribute.Strategy` sees one part. What couples the
examples of a batch has to look beyond it, or training with two replicas is
another training than with one: BatchNorm takes its statistics over all parts,
and what is drawn at random is drawn for the whole batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.masking.paths import layers_by_path


def prepared(model: keras.Model) -> keras.Model:
    """Returns a copy that computes on parts what it does on the whole batch.

    Without a strategy, or with one replica, it is the same as the model.

    Args:
        model: A built model; it stays as it is.

    Raises:
        ValueError: A layer of it cannot; the message names it and says why.
    """
    new = masking.clone_model(model)
    random = {
        path.rpartition("/")[0]
        for path, variable in masking.variables_by_path(new).items()
        if variable.name == "seed_generator_state"
    }
    for path, layer in {"": new, **layers_by_path(new)}.items():
        if getattr(layer, "activity_regularizer", None) is not None:
            raise UserError(
                f"Layer {path!r} has an activity regulariser, which sums over "
                "the examples a replica sees. Train on one device, or give "
                "the penalty to the loss."
            )
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
        if path in random:
            if layer.weights:
                name = path or new.name
                raise UserError(
                    f"Layer {name!r} ({type(layer).__name__}) draws at random "
                    "amid its own weights, which replicas cannot do as one "
                    "device does. Train on one device, or put its dropout "
                    "into a Dropout layer."
                )
            layer.call = _on_the_whole_batch(layer.call)
    return new


def part() -> tuple[Any, int]:
    """Returns which part of a batch is this replica's, and of how many."""
    context = tf.distribute.get_replica_context()
    count = context.num_replicas_in_sync
    if count == 1:
        return 0, 1
    number = context.replica_id_in_sync_group
    known = tf.get_static_value(number)
    return (number if known is None else int(known)), count


def own(whole: tf.Tensor) -> tf.Tensor:
    """Returns this replica's part of a whole batch, of static shape."""
    number, count = part()
    parts = tf.split(whole, count)
    return parts[number] if isinstance(number, int) else tf.stack(parts)[number]


def summed(tensors: Sequence[Any]) -> list[Any]:
    """Returns the sums over all replicas; what is None stays so."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)
    # `identity` gives them this replica's device, which TensorFlow asks for.
    some = [tf.identity(tensor) for tensor in tensors if tensor is not None]
    totals = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, some))
    return [None if tensor is None else next(totals) for tensor in tensors]


def agree(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns of each array whether all replicas have the same, by its bits."""
    mine = tf.stack([_fingerprint(array) for array in arrays])
    (theirs,) = summed([mine])
    _, count = part()
    return count * mine == theirs


def _fingerprint(array: tf.Tensor) -> tf.Tensor:
    """Returns a sum over all bits, int32: of equal arrays the same."""
    if array.dtype.size == 4:
        bits = tf.bitcast(array, tf.int32)
    else:
        bits = tf.bitcast(tf.cast(array, tf.float32), tf.int32)
    bits = tf.reshape(bits, [-1])
    places = tf.range(1, 2 * tf.size(bits) + 1, 2)
    return tf.reduce_sum(bits * places)


def _on_the_whole_batch(call: Callable[..., Any]) -> Callable[..., Any]:
    """Has a layer's draws fall where this part lies in the whole batch."""

    def wrapped(inputs: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        _, count = part()
        if count == 1:
            return call(inputs, *args, **kwargs)
        # What the other parts hold does not matter to what is drawn.
        return own(call(tf.concat([inputs] * count, 0), *args, **kwargs))

    return wrapped
