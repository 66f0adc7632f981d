"""Training states as TensorFlow checkpoints, and weights from user files.

`tf.train.Checkpoint` reads and writes variables, not arrays. So a state passes
through the variables of the trainer's model and optimizer, which `save` and
`load` use as scratch space: they hold that state afterwards. Training does not
notice, because it takes all values from states.
"""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.errors import MissingFileError, UserError, one_line
from tf_lottery.training.state import State, values
from tf_lottery.training.trainer import Trainer

_OPTIMIZER = "optimizer"


def save(trainer: Trainer, state: State, prefix: pathlib.Path) -> None:
    """Writes a state as a `tf.train.Checkpoint` of model and optimizer.

    Plain TensorFlow reads it: `tf.train.Checkpoint(model=model).restore(...)`.
    A state without slots stands for a new optimizer, which is not stored: its
    zeros would take more space than the weights.

    Args:
        trainer: Trainer of the architecture; its model's and optimizer's
            variables are overwritten by the state.
        state: The state to write.
        prefix: Path without suffix; TensorFlow adds `.index` and `.data-…`.
    """
    trainer.state = state
    _checkpoint(trainer, bool(state.slots)).write(str(prefix))


def load(trainer: Trainer, prefix: pathlib.Path) -> State:
    """Returns the state of a checkpoint that `save` wrote.

    Of a checkpoint without an optimizer, slots are as in a new one.

    Args:
        trainer: Trainer of the architecture; its model's and optimizer's
            variables are overwritten by the state.
        prefix: Path without suffix.

    Raises:
        UserError: The checkpoint is missing, damaged, or belongs to another
            model or optimizer.
    """
    try:
        stored = tf.train.list_variables(str(prefix))
        has_slots = any(name.startswith(f"{_OPTIMIZER}/") for name, _ in stored)
        if not has_slots:
            trainer.network.reset_optimizer()
        status = _checkpoint(trainer, has_slots).read(str(prefix))
        status.assert_consumed()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"Checkpoint {prefix} does not hold the training state of this "
            f"model and optimizer ({one_line(error)}). Delete the run "
            "directory, or use another."
        ) from None
    return trainer.state


def load_weights(model: keras.Model, path: str | pathlib.Path) -> None:
    """Sets a model's weights from a file.

    Args:
        model: The built model to fill.
        path: A `.keras` file, a `.weights.h5` file, or the prefix of a
            `tf.train.Checkpoint(model)` or `tf.train.Checkpoint(model=model)`.

    Raises:
        MissingFileError: There is no such file.
        UserError: The file lacks weights of the model; the message names
            them. The model is unchanged then.
    """
    weights = {
        name: variable
        for name, variable in masking.variables_by_path(model).items()
        if variable.name not in ("seed_generator_state", "rnn_state")
    }
    before = values(weights)
    try:
        # No reader reports which weights it did not set: they are still nan.
        for variable in weights.values():
            variable.assign(np.full(variable.shape, np.nan))
        _fill(model, str(path))
        missing = [n for n, v in values(weights).items() if np.isnan(v).any()]
        if missing:
            raise UserError(f"it has no value for {', '.join(missing)}.")
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


def _checkpoint(trainer: Trainer, has_slots: bool) -> tf.train.Checkpoint:
    # Keras leaves states of seed generators and RNNs out of checkpoints.
    states = {
        path: variable.value
        for path, variable in masking.variables_by_path(trainer.model).items()
        if variable.name in ("seed_generator_state", "rnn_state")
    }
    optimizer = {_OPTIMIZER: trainer.network.optimizer} if has_slots else {}
    return tf.train.Checkpoint(model=trainer.model, seeds=states, **optimizer)


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
    # Users write both Checkpoint(model=model) and Checkpoint(model).
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
