"""This module knows how states of training become TensorFlow checkpoints."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.errors import MissingFileError, UserError, one_line
from tf_lottery.training.state import State, values
from tf_lottery.training.trainer import Trainer


def save(trainer: Trainer, state: State, prefix: pathlib.Path) -> None:
    """Writes a state as a `tf.train.Checkpoint` of model and optimizer.

    Plain TensorFlow reads it: `tf.train.Checkpoint(model=model).restore(...)`.

    Args:
        trainer: Whose model and optimizer the state belongs to.
        state: What is written.
        prefix: Where; TensorFlow appends `.index` and `.data-…`.
    """
    trainer.state = state
    _checkpoint(trainer).write(str(prefix))


def load(trainer: Trainer, prefix: pathlib.Path) -> State:
    """Returns the state of a checkpoint that `save` wrote.

    Raises:
        ValueError: It is missing, damaged, or not of this model and optimizer.
    """
    try:
        status = _checkpoint(trainer).read(str(prefix))
        status.assert_consumed()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"Checkpoint {prefix} does not hold the training state of this "
            f"model and optimizer ({one_line(error)}). Delete the run "
            "directory, or take another."
        ) from None
    return trainer.state


def load_weights(model: keras.Model, path: str | pathlib.Path) -> None:
    """Restores a model's weights from a file of the user's.

    Args:
        model: The built model to fill.
        path: A `.keras` file, a `.weights.h5` file, or the prefix of a
            `tf.train.Checkpoint(model)` or `tf.train.Checkpoint(model=model)`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not hold every weight of the model; the message
            names those it lacks. The model is as it was then.
    """
    weights = {
        name: variable
        for name, variable in masking.variables_by_path(model).items()
        if variable.name not in ("seed_generator_state", "rnn_state")
    }
    before = values(weights)
    try:
        # No file format says what it left alone: what is still nan, it did.
        for variable in weights.values():
            variable.assign(np.full(variable.shape, np.nan))
        _fill(model, str(path))
        lacking = [n for n, v in values(weights).items() if np.isnan(v).any()]
        if lacking:
            raise UserError(f"it gives no value for {', '.join(lacking)}.")
        masking.derive(model)
    except Exception as error:
        for name, variable in weights.items():
            variable.assign(before[name])
        masking.derive(model)
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(
            f"{path} does not hold the weights of model {model.name!r}: "
            f"{one_line(error)}"
        ) from None


def _checkpoint(trainer: Trainer) -> tf.train.Checkpoint:
    # Keras tracks the states of seed generators and RNNs in no checkpoint.
    states = {
        path: variable.value
        for path, variable in masking.variables_by_path(trainer.model).items()
        if variable.name in ("seed_generator_state", "rnn_state")
    }
    return tf.train.Checkpoint(
        model=trainer.model,
        optimizer=trainer.network.optimizer,
        seeds=states,
    )


def _fill(model: keras.Model, path: str) -> None:
    if path.endswith((".keras", ".h5")):
        if not tf.io.gfile.exists(path):
            raise MissingFileError(f"No file {path!r}.")
        if path.endswith(".keras"):
            _copy_weights(keras.models.load_model(path, compile=False), model)
        else:
            model.load_weights(path)
        return
    if not tf.io.gfile.exists(f"{path}.index"):
        raise MissingFileError(
            f"No file {path!r} that ends in .keras or .weights.h5, and no "
            f"checkpoint {path}.index."
        )
    # Users write Checkpoint(model=model) and Checkpoint(model) alike.
    for checkpoint in (
        tf.train.Checkpoint(model=model),
        tf.train.Checkpoint(root=model),
    ):
        checkpoint.read(path).expect_partial()


def _copy_weights(source: keras.Model, target: keras.Model) -> None:
    stored = masking.variables_by_path(source)
    for path, variable in masking.variables_by_path(target).items():
        if path not in stored:
            raise UserError(f"it lacks {path!r}; it holds {', '.join(stored)}.")
        if stored[path].shape != variable.shape:
            raise UserError(
                f"{path!r} has shape {tuple(stored[path].shape)} there and "
                f"{tuple(variable.shape)} here."
            )
        variable.assign(stored[path])
