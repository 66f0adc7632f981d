"""Checks that recipe, model, data and devices fit together."""

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.data import Dataset, Split, nested
from tf_lottery.training.backends.custom_step import overridden_methods
from tf_lottery.training.input_pipeline import examples_of
from tf_lottery.training.objective import Objective, mode
from tf_lottery.training.recipe import Recipe


def require_compatible(
    model: keras.Model, recipe: Recipe, data: Dataset, steps_per_epoch: int
) -> None:
    """Raises if recipe, model and data do not fit together.

    Args:
        model: A built model.
        recipe: How networks are trained.
        data: The data set.
        steps_per_epoch: Batches per epoch, >= 0.

    Raises:
        UserError: The message says what does not fit and what to change.
    """
    if recipe.batch_size > len(data.train) and not recipe.keeps_remainder:
        raise UserError(
            f"`batch_size` is {recipe.batch_size}, but there are only "
            f"{len(data.train)} training examples. Use a smaller batch."
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
    _check_dtypes(model)
    _check_inputs(model, data)
    _check_batch_size(model, recipe, data)
    _check_labels(model, recipe, data)


def model_batch_size(model: keras.Model) -> int | None:
    """Returns the fixed batch size of a model, or None if it takes any.

    Args:
        model: A built model.
    """
    inputs = getattr(model, "inputs", None) or []
    sizes = {tensor.shape[0] for tensor in inputs} - {None}
    return sizes.pop() if sizes else None


def _check_dtypes(model: keras.Model) -> None:
    """Raises if NumPy, and so no file, can store a variable."""
    for path, variable in masking.variables_by_path(model).items():
        dtype = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
        if dtype.kind == "V":
            raise UserError(
                f"Variable {path!r} is {variable.dtype}, which NumPy cannot "
                "store. Give the model the dtype policy 'mixed_bfloat16': it "
                "computes in bfloat16 and keeps variables in float32."
            )


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
    for name, setting in sizes.items():
        if setting != size:
            raise UserError(
                f"Model {model.name!r} takes batches of exactly {size} "
                f"examples (batch_shape); `{name}` is {setting}. Use {size}."
            )
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if split is None or len(split) % size == 0:
            continue
        if name != "train" or recipe.keeps_remainder:
            rest = len(split) % size
            raise UserError(
                f"Model {model.name!r} takes batches of exactly {size} "
                f"examples, and the {name} data holds {len(split)}. Leave out "
                f"the last {rest}."
            )


def _check_labels(model: keras.Model, recipe: Recipe, data: Dataset) -> None:
    """Raises if integer labels do not fit the number of outputs."""
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


def require_shardable(
    model: keras.Model,
    recipe: Recipe,
    objective: Objective | None,
    strategy: tf.distribute.Strategy,
) -> None:
    """Raises if a strategy's replicas cannot share the batches.

    Args:
        model: The model.
        recipe: How networks are trained.
        objective: Its loss; None if the model's class overrides a step.
        strategy: The strategy.

    Raises:
        UserError: The message says why, and what to change.
    """
    overridden = overridden_methods(model)
    if overridden or objective is None:
        raise UserError(
            f"{type(model).__qualname__} overrides `{overridden[0]}`, which "
            "does not handle replicas: leave out `strategy`."
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
                f"Loss {type(loss).__name__} overrides `__call__`, which does "
                "not handle replicas. Override `call` instead, or train on "
                "one device."
            )


def require_mean_loss(
    model: keras.Model, recipe: Recipe, objective: Objective, train: Split
) -> None:
    """Raises if the loss of an example depends on the rest of the batch.

    The loss of a batch must be the mean, or the sum, of the losses of its
    examples, because a replica sees only its shard. Masked time steps break
    this: shards may have different numbers of them.

    Args:
        model: The model.
        recipe: How networks are trained.
        objective: Its loss.
        train: Training examples; up to 32 are used for the check.

    Raises:
        UserError: The loss is not such a mean or sum.
    """
    if objective.adds_losses:
        raise UserError(
            "A layer of the model calls `add_loss`, which several devices "
            "cannot share. Train on one device, or move the penalty to the "
            "loss."
        )

    def gradients(first: int, stop: int) -> np.ndarray:
        examples = examples_of(train.rows(slice(first, stop)))
        outputs = model(examples.x, **mode(model, training=False))
        flat = nested.arrays_of(outputs)
        with tf.GradientTape() as tape, objective.scope(objective.zeros()):
            tape.watch(flat)
            loss = objective.loss(examples, outputs, (), training=False)
        by_output = tape.gradient(loss, flat, unconnected_gradients="zero")
        return np.concatenate(
            [
                np.array(each, "float32").reshape(stop - first, -1)
                for each in by_output
            ],
            axis=1,
        )

    count = min(recipe.batch_size, 32, len(train))
    together = gradients(0, count)
    each = np.concatenate([gradients(i, i + 1) for i in range(count)])
    # A sum over examples, or a mean; 1 % is more than half precision rounds.
    error = min(
        np.abs(together - each).max(), np.abs(together - each / count).max()
    )
    if error > 0.01 * np.abs(together).max():
        raise UserError(
            "The loss of a batch is not the mean of its examples' (some do "
            "not count, or affect each other), so the replicas would compute "
            "another loss. Train on one device."
        )


def _check_inputs(model: keras.Model, data: Dataset) -> None:
    expected = _shape(model, "input_shape")[1:]
    for name in ("train", "validation", "test"):
        split = getattr(data, name)
        if split is None or not isinstance(split.x, np.ndarray) or not expected:
            continue
        actual = split.x.shape[1:]
        # Keras adds or drops a last axis of 1.
        shapes = [
            actual,
            (*actual, 1),
            actual[:-1] if actual[-1:] == (1,) else actual,
        ]
        if not any(_fits(expected, shape) for shape in shapes):
            raise UserError(
                f"Inputs of the {name} data have shape {actual} an example; "
                f"the model takes {expected}."
            )


def _fits(expected: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(expected) == len(shape) and all(
        e in (None, s) for e, s in zip(expected, shape, strict=True)
    )


def _shape(model: keras.Model, name: str) -> tuple[int | None, ...]:
    """Returns a shape of the model; `(None,)` if Keras does not know it."""
    shape = getattr(model, name, None)
    is_one = isinstance(shape, tuple) and all(
        size is None or isinstance(size, int) for size in shape
    )
    return tuple(shape) if is_one and shape is not None else (None,)
