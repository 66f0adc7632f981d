"""Computing on one shard of a batch as on the complete batch.

Each replica of a `tf.distribute.Strategy` sees one shard of each batch. Layers
that couple examples must look beyond it, or two replicas would train another
network than one: BatchNorm needs statistics of the complete batch, and random
numbers must be drawn for the complete batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.masking.paths import layers_by_path


def synchronized_copy(model: keras.Model) -> keras.Model:
    """Returns a copy that computes on shards as on the complete batch.

    Without a strategy, or with one replica, it computes what the model does.

    Args:
        model: A built model; it is not changed.

    Raises:
        UserError: A layer cannot do this; the message names it and says why.
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
                f"Layer {path!r} has an activity regularizer, which sums over "
                "the examples of one replica only. Train on one device, or "
                "move the penalty to the loss."
            )
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
        if path in random:
            if layer.weights:
                name = path or new.name
                raise UserError(
                    f"Layer {name!r} ({type(layer).__name__}) has weights and "
                    "draws random numbers, which replicas cannot do as one "
                    "device does. Train on one device, or move its dropout "
                    "to a Dropout layer."
                )
            layer.call = _call_on_complete_batch(layer.call)
    return new


def replica_index() -> tuple[Any, int]:
    """Returns this replica's index and the number of replicas.

    The index is an int, or an int32 scalar where only the device knows it
    (TPU). Outside a strategy: 0 and 1.
    """
    context = tf.distribute.get_replica_context()
    count = context.num_replicas_in_sync
    if count == 1:
        return 0, 1
    index = context.replica_id_in_sync_group
    static = tf.get_static_value(index)
    return (index if static is None else int(static)), count


def local_shard(batch: tf.Tensor) -> tf.Tensor:
    """Returns this replica's shard of a batch, of static shape.

    Args:
        batch: `[batch, ...]`; the number of replicas divides `batch`.

    Returns:
        `[batch / replicas, ...]`.
    """
    index, count = replica_index()
    shards = tf.split(batch, count)
    if isinstance(index, int):
        return shards[index]
    return tf.stack(shards)[index]


def all_reduce_sum(tensors: Sequence[Any]) -> list[Any]:
    """Returns the sum of each tensor over all replicas.

    Args:
        tensors: Tensors of one dtype; None stays None.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(tensors)
    # `identity` puts them on this replica's device, as TensorFlow requires.
    local = [tf.identity(tensor) for tensor in tensors if tensor is not None]
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, local))
    return [None if tensor is None else next(sums) for tensor in tensors]


def equal_on_all(arrays: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns, per array, whether all replicas hold the same bits.

    Args:
        arrays: Tensors of any shapes and dtypes.

    Returns:
        bool `[arrays]`.
    """
    fingerprints = tf.stack([_fingerprint(array) for array in arrays])
    (sums,) = all_reduce_sum([fingerprints])
    _, count = replica_index()
    return count * fingerprints == sums


def _fingerprint(array: tf.Tensor) -> tf.Tensor:
    """Returns an int32 sum over all bits, equal for equal arrays."""
    if array.dtype.size == 4:
        bits = tf.bitcast(array, tf.int32)
    else:
        bits = tf.bitcast(tf.cast(array, tf.float32), tf.int32)
    bits = tf.reshape(bits, [-1])
    odd = tf.range(1, 2 * tf.size(bits) + 1, 2)
    return tf.reduce_sum(bits * odd)


def _call_on_complete_batch(call: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a layer's `call` that draws for all shards, and uses its own."""

    def wrapped(inputs: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        _, count = replica_index()
        if count == 1:
            return call(inputs, *args, **kwargs)
        # Draws depend on the shape only, so copies stand in for other shards.
        repeated = tf.concat([inputs] * count, 0)
        return local_shard(call(repeated, *args, **kwargs))

    return wrapped
