"""Fixtures that several test files use."""

import keras
import numpy as np
import pytest
from browser import page  # noqa: F401 - a fixture
from hypothesis import settings
from small_models import BUILDERS, IMAGE

from tf_lottery.core.masks import Masks
from tf_lottery.masking import kernels

# Same examples on every run and machine, however slow.
settings.register_profile(
    "tf_lottery", deadline=None, derandomize=True, database=None
)
settings.load_profile("tf_lottery")


@pytest.fixture(autouse=True)
def _the_same_weights_on_every_run():
    """Keras draws unseeded initialisers from a generator of the process."""
    keras.utils.set_random_seed(0)


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
