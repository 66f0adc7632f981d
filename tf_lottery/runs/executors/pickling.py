"""Pickling of trainers, with the classes and functions of a user.

Classes and functions of a notebook or a script are pickled by value, by
cloudpickle. Keras' own pickling would look them up by name, which fails in a
process that runs another program; so Keras' objects are pickled as plain
Python objects, by class and attributes.
"""

import collections
import contextlib
import copyreg
import dataclasses
import functools
import hashlib
import mmap
import pathlib
import pickle
import types
from collections.abc import Callable
from typing import Any

import cloudpickle
import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.duration import Duration
from tf_lottery.data import Dataset, Split
from tf_lottery.training import Diverged, Job, State, Trainer

_FILES = ("objects", "arrays", "spans")
_ALIGNMENT = 64  # bytes, as NumPy aligns its arrays
_FUNCTION = type(tf.function(lambda: None))


@dataclasses.dataclass(frozen=True)
class _PickledTrainer:
    """What a process needs to build a trainer.

    Attributes:
        model: The model, or its architecture as JSON.
        settings: The other arguments of `Trainer`.
        custom_objects: The objects that the user registered with Keras.
        keras_settings: Keras' floatx, epsilon and image data format.
    """

    model: keras.Model | str
    settings: tuple[Any, ...]
    custom_objects: dict[str, Any]
    keras_settings: tuple[str, float, str]


def pickle_trainer(
    trainer: Trainer, folder: pathlib.Path
) -> Callable[[], Trainer]:
    """Pickles a trainer, so that another process can build it.

    Arrays are stored in a file of their own, which all processes map into
    memory.

    Args:
        trainer: The trainer; without a strategy.
        folder: An empty folder.

    Returns:
        A function that builds the trainer as long as the folder exists. It
        can be pickled.

    Raises:
        Exception: An object cannot be pickled.
    """
    settings = trainer.recipe, trainer.data, tuple(trainer.network.masked)
    pickled = _PickledTrainer(
        trainer.model,
        settings,
        dict(keras.saving.get_custom_objects()),
        (
            keras.config.floatx(),
            keras.config.epsilon(),
            keras.config.image_data_format(),
        ),
    )
    try:
        _write(pickled, folder)
    except Exception as error:  # noqa: BLE001 - a user's objects
        if not _write_copy(pickled, folder):
            raise error from None
    return functools.partial(_build, folder)


def _write_copy(pickled: _PickledTrainer, folder: pathlib.Path) -> bool:
    """Writes it with a copy of the model, or its architecture, if it can.

    A model that `fit` has trained holds compiled functions, which a copy does
    not; lookup tables can be pickled in neither.
    """
    model: Any = pickled.model
    for function in (masking.clone_model, masking.architecture_of):
        with contextlib.suppress(Exception):
            copy = function(model)
            if copy is not None:
                _write(dataclasses.replace(pickled, model=copy), folder)
                return True
    return False


def in_memory(folder: pathlib.Path) -> Callable[[], Trainer]:
    """Returns the function of `pickle_trainer`, which needs no folder then.

    The function leaves the choice of devices to its process.

    Args:
        folder: The folder that `pickle_trainer` has filled.
    """
    files = [np.fromfile(folder / name, np.uint8) for name in _FILES]
    return functools.partial(_build_from, *files)


def _build(folder: pathlib.Path) -> Trainer:
    # The process that pickled the trainer computes on the CPU too.
    tf.config.set_visible_devices([], "GPU")
    return _build_from(*(_mapped(folder / name) for name in _FILES))


def _build_from(objects: Any, arrays: Any, spans: Any) -> Trainer:
    """Builds a trainer from the contents of three files, as buffers."""
    view = memoryview(arrays)
    buffers = [view[o : o + size] for o, size in pickle.loads(spans)]
    pickled = pickle.loads(objects, buffers=buffers)
    floatx, epsilon, image_data_format = pickled.keras_settings
    keras.config.set_floatx(floatx)
    keras.config.set_epsilon(epsilon)
    keras.config.set_image_data_format(image_data_format)
    for name, custom_object in pickled.custom_objects.items():
        _register(name, custom_object)
    model = pickled.model
    if isinstance(model, str):
        model = masking.rebuilt(model)
    return Trainer(model, *pickled.settings)


def _mapped(path: pathlib.Path) -> Any:
    """Returns the content of a file, which processes share."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _register(name: str, custom_object: Any) -> None:
    """Registers an object by its name, and the name by the object."""
    package, separator, short = name.partition(">")
    if separator:
        keras.saving.register_keras_serializable(package, short)(custom_object)
    keras.saving.get_custom_objects()[name] = custom_object


def _write(pickled: _PickledTrainer, folder: pathlib.Path) -> None:
    spans: list[tuple[int, int]] = []  # offset and bytes of each array
    with (folder / "arrays").open("wb") as arrays:

        def write_array(buffer: pickle.PickleBuffer) -> None:
            arrays.write(bytes(-arrays.tell() % _ALIGNMENT))
            raw = buffer.raw()
            spans.append((arrays.tell(), raw.nbytes))
            arrays.write(raw)

        with (folder / "objects").open("wb") as objects:
            pickler = _Pickler(objects, protocol=5, buffer_callback=write_array)
            pickler.dump(pickled)
    (folder / "spans").write_bytes(pickle.dumps(spans))


class _Pickler(cloudpickle.Pickler):
    """Pickles Keras' objects by their attributes, the rest by cloudpickle."""

    def reducer_override(self, obj: Any) -> Any:
        """Returns how an object is rebuilt, as `object.__reduce__` does."""
        cls = type(obj)
        if isinstance(obj, np.memmap):
            return np.asarray, (obj.view(np.ndarray),)
        if isinstance(obj, _FUNCTION):
            return tf.function, (obj.python_function,)
        if isinstance(obj, tf.distribute.Strategy):
            return tf.distribute.get_strategy, ()  # optimizers hold it
        if _is_of_keras(obj):
            # pickle would fill Keras' tracked lists and dictionaries by
            # methods that need attributes which do not exist yet.
            items: Any = None
            if isinstance(obj, dict):
                items = dict(obj)
            elif isinstance(obj, list | set):
                items = list(obj)
            state = items, dict(vars(obj))
            return copyreg.__newobj__, (cls,), state, None, None, _fill  # type: ignore[attr-defined]
        return super().reducer_override(obj)


def _is_of_keras(obj: Any) -> bool:
    excluded = type, types.FunctionType, types.ModuleType
    return (
        hasattr(obj, "__dict__")
        and not isinstance(obj, excluded)
        and any(c.__module__.startswith("keras.") for c in type(obj).__mro__)
    )


def _fill(obj: Any, state: tuple[Any, dict[str, Any]]) -> None:
    items, attributes = state
    if isinstance(obj, list):
        list.extend(obj, items)
    elif isinstance(obj, set):
        set.update(obj, items)
    elif isinstance(obj, dict):
        is_ordered = isinstance(obj, collections.OrderedDict)
        base: Any = collections.OrderedDict if is_ordered else dict
        for key, value in items.items():
            base.__setitem__(obj, key, value)
    vars(obj).update(attributes)


def training_digest(
    trainer: Trainer, start: State, architecture: str | None
) -> str:
    """Returns a digest of the results of two training steps.

    Two trainers with equal digests train the same networks.

    Args:
        trainer: The trainer; it is not changed.
        start: The state to start from.
        architecture: A model, as JSON, that must be rebuilt too, for controls
            that rebuild it. None: there are no such controls.
    """
    if architecture is not None:
        masking.rebuilt(architecture)
    recipe = dataclasses.replace(
        trainer.recipe, length=Duration("2it"), evaluate_every=1
    )
    short = Trainer(
        trainer.model,
        recipe,
        _cut(trainer.data, 2 * recipe.batch_size),
        tuple(trainer.network.masked),
    )
    ones = {
        path: np.ones(start.weights[path].shape, bool)
        for path in short.network.masked
    }
    (outcome,) = short.train([Job(start, ones)])
    if isinstance(outcome, Diverged):
        return str(outcome)
    metrics = {k: v for k, v in outcome.metrics.items() if k != "seconds"}
    results = State(2, outcome.trained, {}).digest, metrics
    return hashlib.sha256(repr(results).encode()).hexdigest()


def _cut(data: Dataset, examples: int) -> Dataset:
    def cut(split: Split | None) -> Any:
        return None if split is None else split.rows(slice(0, examples))

    return dataclasses.replace(
        data,
        train=cut(data.train),
        validation=cut(data.validation),
        test=cut(data.test),
    )
