"""This module knows whether recipe, model and data fit together."""

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.data import Dataset, Split
from tf_lottery.training.network import Network
from tf_lottery.training.own_steps import own_methods
from tf_lottery.training.recipe import Recipe


def require_fit(
    model: keras.Model,
    recipe: Recipe,
    data: Dataset,
    loss: keras.losses.Loss | None,
) -> None:
    """Raises a ValueError, before anything trains, if they do not."""
    if recipe.batch_size > len(data.train):
        raise ValueError(
            f"`batch_size` is {recipe.batch_size}, but there are only "
            f"{len(data.train)} training examples. Take a smaller batch."
        )
    if recipe.length.steps_at(len(data.train) // recipe.batch_size) < 1:
        raise ValueError(
            f"`length` is {recipe.length}: no step at all. Train for at least "
            "'1it'."
        )
    _check_inputs(model, data.train)
    sparse = keras.losses.sparse_categorical_crossentropy
    if (
        isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
        or recipe.loss in (sparse, sparse.__name__)
    ) and data.classes is not None:
        units = _shape(model, "output_shape")[-1]
        if units is not None and data.classes > units:
            raise ValueError(
                f"Labels go up to {data.classes - 1}, but the model has "
                f"{units} outputs, for labels 0 to {units - 1}."
            )


def require_parts(
    model: keras.Model,
    recipe: Recipe,
    loss: keras.losses.Loss | None,
    strategy: tf.distribute.Strategy,
) -> None:
    """Raises a ValueError if batches cannot be split over the replicas."""
    if own := own_methods(model):
        raise ValueError(
            f"{type(model).__qualname__} has a `{own[0]}` of its own, which "
            "knows nothing of replicas: leave out `strategy`."
        )
    count, size = strategy.num_replicas_in_sync, recipe.batch_size
    if size % count:
        below, above = size - size % count, size - size % count + count
        nearest = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"`batch_size` is {size}, which {count} replicas cannot share "
            f"evenly. Take {nearest}, or other devices."
        )
    if type(loss).__call__ is not keras.losses.Loss.__call__ and count > 1:
        raise ValueError(
            f"Loss {type(loss).__name__} has a `__call__` of its own, which "
            "does not know of replicas. Give it `call` in its place, or train "
            "on one device."
        )


def require_no_added_loss(network: Network, train: Split) -> None:
    """Raises a ValueError if a layer adds a loss for what it sees.

    Keras keeps it in the layer, from where the threads of two replicas, or of
    two devices, take and drop each other's.

    Args:
        network: Whose layers they are.
        train: Examples to try it on.
    """
    values = network.values_of(network.state)
    _, _, losses = network.model.stateless_call(
        values.weights,
        values.others,
        tf.constant(train.x[:2]),
        return_losses=True,
        **network.mode(training=True),
    )
    weights = network.model.trainable_weights
    if len(losses) != sum(w.regularizer is not None for w in weights):
        raise ValueError(
            "A layer of the model calls `add_loss`, which several devices "
            "cannot share. Train on one device, or give the penalty to the "
            "loss."
        )


def require_mean(network: Network, train: Split, size: int) -> None:
    """Raises a ValueError if a loss depends on who shares a batch.

    That of a batch has to be the mean, or the sum, of those of its examples:
    parts of a batch know nothing of each other's. Time steps that do not
    count, of which one part has more than another, are what breaks it.

    Args:
        network: Whose loss it is.
        train: Examples to try it on.
        size: How many make up a batch.
    """
    values = network.values_of(network.state)

    def slopes(first: int, stop: int) -> np.ndarray:
        x, y = (tf.constant(a[first:stop]) for a in (train.x, train.y))
        with tf.GradientTape() as tape:
            outputs = network.outputs(values, x)
            tape.watch(outputs)
            loss = network.loss(y, outputs)
        return np.array(tape.gradient(loss, outputs), "float32")

    count = min(size, 32)
    each = np.concatenate([slopes(i, i + 1) for i in range(count)])
    if network.loss.reduction not in ("sum", "none", None):
        each /= count
    off = np.abs(slopes(0, count) - each).max()
    if off > 0.01 * np.abs(each).max():  # more than half precision rounds
        raise ValueError(
            f"Loss {type(network.loss).__name__} of a batch is not the mean "
            "of its examples' (some do not count, or look at each other), so "
            "that replicas with parts of it come to another. Train on one "
            "device."
        )


def _check_inputs(model: keras.Model, train: Split) -> None:
    expected = _shape(model, "input_shape")[1:]
    given = train.x.shape[1:]
    if not expected:
        return
    fits = len(expected) == len(given) and all(
        e in (None, g) for e, g in zip(expected, given, strict=True)
    )
    if not fits:
        raise ValueError(
            f"Inputs have shape {given} an example; the model takes {expected}."
        )


def _shape(model: keras.Model, name: str) -> tuple[int | None, ...]:
    """Returns the model's shape; a subclassed one does not know its own."""
    try:
        return tuple(getattr(model, name))
    except AttributeError:
        return (None,)
