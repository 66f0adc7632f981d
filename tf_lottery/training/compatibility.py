"""Checks that recipe, model, data and devices fit together."""

import keras
import numpy as np
import tensorflow as tf

from tf_lottery.core.errors import UserError
from tf_lottery.data import Dataset, Split, nested
from tf_lottery.training.backends.custom_step import own_methods
from tf_lottery.training.input_pipeline import examples_of
from tf_lottery.training.objective import Objective, mode
from tf_lottery.training.recipe import Recipe


def require_compatible(
    model: keras.Model, recipe: Recipe, data: Dataset, steps_per_epoch: int
) -> None:
    """Raises a ValueError, before anything trains, if they do not."""
    if recipe.batch_size > len(data.train) and not recipe.keeps_remainder:
        raise UserError(
            f"`batch_size` is {recipe.batch_size}, but there are only "
            f"{len(data.train)} training examples. Take a smaller batch."
        )
    if recipe.length.steps_at(steps_per_epoch) < 1:
        raise UserError(
            f"`length` is {recipe.length}: no step at all. Train for at least "
            "'1it'."
        )
    if data.augment is not None and not isinstance(data.train.x, np.ndarray):
        raise UserError(
            "Augmentation needs one array of images; x is nested as "
            f"{nested.nesting(data.train.x)}."
        )
    _check_inputs(model, data)
    _check_batch_size(model, recipe, data)
    _check_labels(model, recipe, data)


def model_batch_size(model: keras.Model) -> int | None:
    """Returns the number of examples that a model takes at a time.

    None: any number.
    """
    inputs = getattr(model, "inputs", None) or []
    sizes = {tensor.shape[0] for tensor in inputs} - {None}
    return sizes.pop() if sizes else None


def _check_batch_size(
    model: keras.Model, recipe: Recipe, data: Dataset
) -> None:
    size = model_batch_size(model)
    if size is None:
        return
    sizes = {"batch_size": recipe.batch_size}
    sizes["validation_batch_size"] = (
        recipe.validation_batch_size or recipe.batch_size
    )
    for name, given in sizes.items():
        if given != size:
            raise UserError(
                f"Model {model.name!r} takes batches of exactly {size} "
                f"examples (batch_shape); `{name}` is {given}. Give {size}."
            )
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if split is None or len(split) % size == 0:
            continue
        if name != "train" or recipe.keeps_remainder:
            below = len(split) - len(split) % size
            raise UserError(
                f"Model {model.name!r} takes batches of exactly {size} "
                f"examples, and the {name} data holds {len(split)}. Leave out "
                f"the last {len(split) - below}."
            )


def _check_labels(model: keras.Model, recipe: Recipe, data: Dataset) -> None:
    """Raises if labels and outputs of a classification do not fit."""
    kind = keras.losses.SparseCategoricalCrossentropy
    function = keras.losses.sparse_categorical_crossentropy
    is_sparse = isinstance(recipe.loss, kind) or recipe.loss in (
        function,
        function.__name__,
    )
    if not is_sparse or getattr(recipe.loss, "ignore_class", None) is not None:
        return
    units = _shape(model, "output_shape")[-1]
    if units is None:
        return
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if split is None or not isinstance(split.y, np.ndarray):
            continue
        low, high = split.y.min(), split.y.max()
        if low < 0:
            raise UserError(
                f"Labels of the {name} data must be 0 or more; got {low}."
            )
        if high >= units:
            raise UserError(
                f"Labels go up to {high}, but the model has "
                f"{units} outputs, for labels 0 to {units - 1}."
            )


def require_parts(
    model: keras.Model,
    recipe: Recipe,
    objective: Objective | None,
    strategy: tf.distribute.Strategy,
) -> None:
    """Raises a ValueError if batches cannot be split over the replicas."""
    own = own_methods(model)
    if own or objective is None:
        raise UserError(
            f"{type(model).__qualname__} has a `{own[0]}` of its own, which "
            "knows nothing of replicas: leave out `strategy`."
        )
    count, size = strategy.num_replicas_in_sync, recipe.batch_size
    if size % count:
        below, above = size - size % count, size - size % count + count
        nearest = f"{below} or {above}" if below else f"{above}"
        raise UserError(
            f"`batch_size` is {size}, which {count} replicas cannot share "
            f"evenly. Take {nearest}, or other devices."
        )
    if count == 1:
        return
    for loss in keras.tree.flatten(recipe.loss):
        is_loss = isinstance(loss, keras.losses.Loss)
        if is_loss and type(loss).__call__ is not keras.losses.Loss.__call__:
            raise UserError(
                f"Loss {type(loss).__name__} has a `__call__` of its own, "
                "which does not know of replicas. Give it `call` in its "
                "place, or train on one device."
            )


def require_mean(
    model: keras.Model, recipe: Recipe, objective: Objective, train: Split
) -> None:
    """Raises a ValueError if a loss depends on who shares a batch.

    That of a batch has to be the mean, or the sum, of those of its examples:
    parts of a batch know nothing of each other's. Time steps that do not
    count, of which one part has more than another, are what breaks it.

    Args:
        model: What is trained.
        recipe: How.
        objective: Its loss.
        train: Examples to try it on.
    """
    if objective.adds_losses:
        raise UserError(
            "A layer of the model calls `add_loss`, which several devices "
            "cannot share. Train on one device, or give the penalty to the "
            "loss."
        )

    def slopes(first: int, stop: int) -> np.ndarray:
        examples = examples_of(train.rows(slice(first, stop)))
        outputs = model(examples.x, **mode(model, training=False))
        flat = nested.arrays_of(outputs)
        with tf.GradientTape() as tape, objective.scope(objective.zeros()):
            tape.watch(flat)
            loss = objective.loss(examples, outputs, (), training=False)
        found = tape.gradient(loss, flat, unconnected_gradients="zero")
        return np.concatenate(
            [
                np.array(each, "float32").reshape(stop - first, -1)
                for each in found
            ],
            axis=1,
        )

    count = min(recipe.batch_size, 32, len(train))
    whole = slopes(0, count)
    each = np.concatenate([slopes(i, i + 1) for i in range(count)])
    # A sum over examples, or a mean; more off than half precision rounds.
    off = min(np.abs(whole - each).max(), np.abs(whole - each / count).max())
    if off > 0.01 * np.abs(whole).max():
        raise UserError(
            "The loss of a batch is not the mean of its examples' (some do "
            "not count, or look at each other), so that replicas with parts "
            "of it come to another. Train on one device."
        )


def _check_inputs(model: keras.Model, data: Dataset) -> None:
    expected = _shape(model, "input_shape")[1:]
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if split is None or not isinstance(split.x, np.ndarray) or not expected:
            continue
        given = split.x.shape[1:]
        # Keras adds or drops a last axis of 1.
        shapes = [
            given,
            (*given, 1),
            given[:-1] if given[-1:] == (1,) else given,
        ]
        if not any(_fits(expected, shape) for shape in shapes):
            raise UserError(
                f"Inputs of the {name} data have shape {given} an example; the "
                f"model takes {expected}."
            )


def _fits(expected: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(expected) == len(shape) and all(
        e in (None, s) for e, s in zip(expected, shape, strict=True)
    )


def _shape(model: keras.Model, name: str) -> tuple[int | None, ...]:
    """Returns the model's shape; a subclassed one does not know its own."""
    shape = getattr(model, name, None)
    is_one = isinstance(shape, tuple) and all(
        size is None or isinstance(size, int) for size in shape
    )
    return tuple(shape) if is_one and shape is not None else (None,)
