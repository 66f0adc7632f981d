"""Small models that several test files use. Every builder takes no argument."""

import keras
import numpy as np
import pytest
from browser import page  # noqa: F401 - a fixture
from hypothesis import settings

from tf_lottery.masking import kernels
from tf_lottery.masks import Masks

# Same examples on every run and machine, however slow.
settings.register_profile(
    "tf_lottery", deadline=None, derandomize=True, database=None
)
settings.load_profile("tf_lottery")

L = keras.layers


@pytest.fixture(autouse=True)
def _the_same_weights_on_every_run():
    """Keras draws unseeded initialisers from a generator of the process."""
    keras.utils.set_random_seed(0)


IMAGE = (6, 6, 2)


def sequential():
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            L.Conv2D(3, 3, activation="relu"),
            L.BatchNormalization(),
            L.Flatten(),
            L.Dense(5, activation="relu"),
            L.Dense(3),
        ]
    )


def functional():
    image = keras.Input(IMAGE)
    left = L.Conv2D(3, 3, padding="same")(image)
    right = L.Conv2D(3, 1, name="shortcut")(image)
    x = L.Flatten()(L.Add()([left, right]))
    return keras.Model(image, L.Dense(3, name="head")(L.Dropout(0.5)(x)))


def nested():
    image = keras.Input(IMAGE)
    encoder = keras.Sequential(
        [keras.Input(IMAGE), L.Conv2D(2, 3), L.Flatten(), L.Dense(6)],
        name="encoder",
    )
    return keras.Model(image, L.Dense(3)(L.Dense(6)(encoder(image))))


def shared():
    image = keras.Input(IMAGE)
    tied = L.Dense(4, name="tied")
    inner = keras.Sequential([keras.Input((4,)), tied], name="inner")
    x = L.Dense(4)(L.Flatten()(image))
    return keras.Model(image, L.Dense(3)(inner(tied(tied(x)))))


BUILDERS = {b.__name__: b for b in (sequential, functional, nested, shared)}


@pytest.fixture(params=BUILDERS)
def build(request):
    """A function that builds one kind of model, new at every call."""
    keras.utils.set_random_seed(7)
    return BUILDERS[request.param]


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(8, *IMAGE)).astype("float32")


@pytest.fixture
def labels():
    return np.arange(8) % 3


@pytest.fixture
def some_masks():
    """A function: model -> masks that keep about half, none kept whole."""

    def masks_of(model):
        rng = np.random.default_rng(1)
        shapes = {p: k.variable.shape for p, k in kernels(model).items()}
        return Masks({p: rng.random(s) < 0.5 for p, s in shapes.items()})

    return masks_of
