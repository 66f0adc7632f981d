"""Times LeNet-300-100 in Keras' and tfmot's `fit`.

Leaving `fit`, or dropping a tf.data iterator, sometimes blocks for seconds
(TF 2.21). Batches are therefore timed inside `fit`, and the ends of epochs are
left out. Images are flattened beforehand, a favour to `fit`.
"""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import workload

# An epoch of 55,000 images has 917 batches. The first are compilation and warm
# up; the last are not a whole execution of 100 steps.
FIRST_TIMED, LAST_TIMED = 200, 900


class Stopwatch:
    """Times batches FIRST_TIMED to LAST_TIMED of every epoch."""

    def __init__(self) -> None:
        self._steps = 0
        self._seconds = 0.0
        self._started = 0.0

    def batch_begins(self, batch: int, logs: Any = None) -> None:
        """Reads the clock; give it to `fit` as `on_train_batch_begin`.

        The beginning and not the end: a callback at the end of a batch turns
        off the asynchronous callbacks of Keras 3 and so changes what it times.
        """
        if batch == FIRST_TIMED:
            self._started = time.perf_counter()
        elif batch == LAST_TIMED:
            self._seconds += time.perf_counter() - self._started
            self._steps += LAST_TIMED - FIRST_TIMED

    def steps_per_second(self) -> float:
        """Returns the speed over all timed batches."""
        if not self._steps:
            raise RuntimeError(f"`fit` never reached batch {LAST_TIMED}.")
        return self._steps / self._seconds


def fit_as_called(steps: int, mnist: pathlib.Path) -> dict[str, Any]:
    """Times Keras 3 `fit` with every default, progress bar included.

    Args:
        steps: Steps to time, rounded up to whole epochs.
        mnist: What `workload.write_mnist` wrote.
    """
    return _time_keras(steps, mnist, {})


def fit_best_setting(steps: int, mnist: pathlib.Path) -> dict[str, Any]:
    """Times Keras 3 `fit` compiled by XLA, 100 steps an execution, silent.

    Args:
        steps: Steps to time, rounded up to whole epochs.
        mnist: As `fit_as_called` takes it.
    """
    settings = {"jit_compile": True, "steps_per_execution": 100}
    return _time_keras(steps, mnist, settings, verbose=0)


def tfmot_in_fit(steps: int, mnist: pathlib.Path) -> dict[str, Any]:
    """Times tfmot's pruning wrapper in the silent `fit` of tf_keras.

    Must have a process of its own: importing tfmot turns `tf.keras` into
    tf_keras and sets TF_USE_LEGACY_KERAS.

    Args:
        steps: Steps to time, rounded up to whole epochs.
        mnist: As `fit_as_called` takes it.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    sparsity = tfmot.sparsity.keras
    schedule = sparsity.ConstantSparsity(
        1 - workload.DENSITY, begin_step=0, frequency=100
    )
    model = sparsity.prune_low_magnitude(_lenet(tf_keras), schedule)
    _compile(tf_keras, model)
    callbacks = [sparsity.UpdatePruningStep()]
    return {
        "steps_per_second": _time_fit(
            tf_keras, model, steps, mnist, callbacks=callbacks, verbose=0
        ),
        "versions": {
            "tf_keras": tf_keras.__version__,
            "tfmot": tfmot.__version__,
        },
    }


def _time_keras(
    steps: int,
    mnist: pathlib.Path,
    compile_settings: dict[str, Any],
    **fit_settings: Any,
) -> dict[str, Any]:
    import keras
    import tensorflow as tf

    model = _lenet(keras)
    _compile(keras, model, **compile_settings)
    return {
        "steps_per_second": _time_fit(
            keras, model, steps, mnist, **fit_settings
        ),
        "versions": {
            "keras": keras.__version__,
            "numpy": np.__version__,
            "tensorflow": tf.__version__,
        },
    }


def _lenet(keras: Any) -> Any:
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(300, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def _compile(keras: Any, model: Any, **settings: Any) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(workload.LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **settings,
    )


def _time_fit(
    keras: Any,
    model: Any,
    steps: int,
    mnist: pathlib.Path,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> float:
    images, labels = workload.read_mnist(mnist)
    watch = Stopwatch()
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_begin=watch.batch_begins
    )
    model.fit(
        images.reshape(-1, 784) / np.float32(255),
        labels,
        batch_size=workload.BATCH_SIZE,
        epochs=-(-steps // (LAST_TIMED - FIRST_TIMED)),
        callbacks=[*callbacks, clock],
        **settings,
    )
    return watch.steps_per_second()
