"""Fixtures that several test files use."""

import shutil

import xla_cache  # noqa: F401

# isort: split
import keras
import numpy as np
import pytest
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


@pytest.fixture(scope="module")
def open_page():
    """A function that opens an address in Chromium.

    It returns the page, and the lists of the addresses that the page requests
    and of the messages on its console.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no browser: chromium is not on the PATH")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            # Root may not use the sandbox.
            args=["--headless", "--no-sandbox", "--disable-gpu"],
        )

        def open_page(address, width=1280):
            page = browser.new_page(viewport={"width": width, "height": 900})
            requests, errors = [], []
            page.on("request", lambda request: requests.append(request.url))
            page.on("console", lambda message: errors.append(message.text))
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            return page, requests, errors

        yield open_page
        browser.close()
