"""The workload that every contender of a benchmark trains."""

import pathlib

import numpy as np

BATCH_SIZE = 60
LEARNING_RATE = 1.2e-3  # Frankle & Carbin 2019, arXiv:1803.03635, Fig. 2.
DENSITY = 0.21


def write_mnist(path: pathlib.Path) -> None:
    """Saves our training split for contenders that cannot import tf_lottery.

    Args:
        path: The .npz to write: `x` uint8 [55000, 28, 28], `y` int32 [55000].
    """
    from tf_lottery import data

    train = data.load_dataset("mnist").train
    images = np.rint(train.x[..., 0] * 255).astype(np.uint8)
    np.savez(path, x=images, y=train.y)


def read_mnist(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and labels as `write_mnist` saved them."""
    with np.load(path) as arrays:
        return arrays["x"], arrays["y"]
