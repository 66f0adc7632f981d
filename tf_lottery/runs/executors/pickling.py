"""Trainers that travel to processes, with whatever the user defined.

Classes and functions of a notebook or a script travel by value, by
cloudpickle. Keras' own pickling would look them up by name, where a process
that runs something else does not find them; so Keras' objects travel as what
they are to Python, a class and its attributes.
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
from collections.abc import Callable, Iterable
from typing import Any

import cloudpickle
import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.duration import Duration
from tf_lottery.data import Dataset, Split
from tf_lottery.training import Diverged, Job, State, Trainer

_ALIGNED = 64  # bytes, as NumPy likes its arrays
_FUNCTION = type(tf.function(lambda: None))


@dataclasses.dataclass(frozen=True)
class _PickledTrainer:
    """What a process needs to build a trainer.

    Attributes:
        model: The model, or its architecture.
        settings: What `Trainer` takes beside it.
        objects: What the user registered with Keras.
        keras: Settings of Keras that layers and losses look at.
    """

    model: keras.Model | str
    settings: tuple[Any, ...]
    objects: dict[str, Any]
    keras: tuple[str, float, str]


def pack(trainer: Trainer, folder: pathlib.Path) -> Callable[[], Trainer]:
    """Writes a trainer down, for another process to build the same one.

    Arrays lie in a file of their own, which all processes map into memory.

    Args:
        trainer: The trainer; without a strategy.
        folder: An empty folder.

    Returns:
        Builds the trainer, as long as the folder is there; it pickles.

    Raises:
        Exception: Something cannot be pickled.
    """
    settings = trainer.recipe, trainer.data, tuple(trainer.network.masked)
    luggage = _PickledTrainer(
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
        _write(luggage, folder)
    except Exception as error:  # noqa: BLE001 - a user's objects
        if not _written_as_copy(luggage, folder):
            raise error from None
    return functools.partial(_unpack, folder)


def _written_as_copy(luggage: _PickledTrainer, folder: pathlib.Path) -> bool:
    """Writes it with a copy of the model, or its architecture, if it can.

    A model that `fit` has trained holds compiled functions, which a copy does
    not; tables of words pickle in neither.
    """
    model: Any = luggage.model
    for form in (masking.clone_model, masking.architecture_of):
        with contextlib.suppress(Exception):
            made = form(model)
            if made is not None:
                _write(dataclasses.replace(luggage, model=made), folder)
                return True
    return False


def _unpack(folder: pathlib.Path) -> Trainer:
    tf.config.set_visible_devices([], "GPU")  # as where it comes from
    luggage = _read(folder)
    floatx, epsilon, image_data_format = luggage.keras
    keras.config.set_floatx(floatx)
    keras.config.set_epsilon(epsilon)
    keras.config.set_image_data_format(image_data_format)
    for name, known in luggage.objects.items():
        _register(name, known)
    model = luggage.model
    if isinstance(model, str):
        model = masking.rebuilt(model)
    return Trainer(model, *luggage.settings)


def _register(name: str, known: Any) -> None:
    """Has Keras find an object by its name, and the name by the object."""
    package, separator, short = name.partition(">")
    if separator:
        keras.saving.register_keras_serializable(package, short)(known)
    keras.saving.get_custom_objects()[name] = known


def _write(luggage: _PickledTrainer, folder: pathlib.Path) -> None:
    places: list[tuple[int, int]] = []
    with (folder / "arrays").open("wb") as arrays:

        def keep(buffer: pickle.PickleBuffer) -> None:
            arrays.write(bytes(-arrays.tell() % _ALIGNED))
            raw = buffer.raw()
            places.append((arrays.tell(), raw.nbytes))
            arrays.write(raw)

        with (folder / "objects").open("wb") as objects:
            _Pickler(objects, protocol=5, buffer_callback=keep).dump(luggage)
    (folder / "places").write_bytes(pickle.dumps(places))


def _read(folder: pathlib.Path) -> _PickledTrainer:
    places = pickle.loads((folder / "places").read_bytes())
    buffers: Iterable[Any] = ()
    if places:
        with (folder / "arrays").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = memoryview(mapped)
        buffers = [whole[first : first + size] for first, size in places]
    with (folder / "objects").open("rb") as objects:
        return pickle.load(objects, buffers=buffers)


class _Pickler(cloudpickle.Pickler):
    """Pickles Keras' objects by what they hold, and the rest by cloudpickle."""

    def reducer_override(self, thing: Any) -> Any:
        """Returns how a thing is built again."""
        cls = type(thing)
        if isinstance(thing, np.memmap):
            return np.asarray, (thing.view(np.ndarray),)
        if isinstance(thing, _FUNCTION):
            return tf.function, (thing.python_function,)
        if isinstance(thing, tf.distribute.Strategy):
            return tf.distribute.get_strategy, ()  # optimizers hold it
        if _is_of_keras(thing):
            # Lists and the like that Keras watches would call what is not
            # built yet, were they filled as Python does it.
            items: Any = None
            if isinstance(thing, dict):
                items = dict(thing)
            elif isinstance(thing, list | set):
                items = list(thing)
            state = items, dict(vars(thing))
            return copyreg.__newobj__, (cls,), state, None, None, _fill  # type: ignore[attr-defined]
        return super().reducer_override(thing)


def _is_of_keras(thing: Any) -> bool:
    kinds = type, types.FunctionType, types.ModuleType
    return (
        hasattr(thing, "__dict__")
        and not isinstance(thing, kinds)
        and any(c.__module__.startswith("keras.") for c in type(thing).__mro__)
    )


def _fill(thing: Any, state: tuple[Any, dict[str, Any]]) -> None:
    items, attributes = state
    if isinstance(thing, list):
        list.extend(thing, items)
    elif isinstance(thing, set):
        set.update(thing, items)
    elif isinstance(thing, dict):
        ordered = isinstance(thing, collections.OrderedDict)
        base: Any = collections.OrderedDict if ordered else dict
        for key, value in items.items():
            base.__setitem__(thing, key, value)
    vars(thing).update(attributes)


def probe(trainer: Trainer, start: State, architecture: str | None) -> str:
    """Returns a digest of two steps of training, and what they come to.

    Two trainers of one digest train the same networks.

    Args:
        trainer: The trainer; it is not changed.
        start: Where to start.
        architecture: A model that is to be rebuilt too, for controls that
            rebuild it; None if there are none such.
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
    every = {
        path: np.ones(start.weights[path].shape, bool)
        for path in short.network.masked
    }
    (run,) = short.train([Job(start, every)])
    if isinstance(run, Diverged):
        return f"{run}"
    metrics = {k: v for k, v in run.metrics.items() if k != "seconds"}
    text = repr((State(2, run.trained, {}).digest, metrics))
    return hashlib.sha256(text.encode()).hexdigest()


def _cut(data: Dataset, examples: int) -> Dataset:
    def few(split: Split | None) -> Any:
        return None if split is None else split.rows(slice(0, examples))

    return dataclasses.replace(
        data,
        train=few(data.train),
        validation=few(data.validation),
        test=few(data.test),
    )
