"""MNIST, which ships with the package."""

import functools
import pathlib

import numpy as np

from tf_lottery.core import seeds
from tf_lottery.data.catalogue import DataDir
from tf_lottery.data.dataset import Dataset, Split

_FILE = pathlib.Path(__file__).parent / "mnist.npz"
_VALIDATION = 5_000
_SPLIT_SEED = 0


def mnist(data_dir: DataDir = None) -> Dataset:
    """Returns MNIST as the paper splits it: 55,000 / 5,000 / 10,000.

    The validation split is drawn once, from a fixed seed, and shared by all
    replicates (Frankle & Carbin 2019, G.1: 5,000 examples sampled at random
    from the training set). The paper states no normalization; pixels are
    scaled to [0, 1], as by Zhou et al. 2019.

    Args:
        data_dir: Ignored: the data ships with the package.

    Returns:
        Inputs float32 `[examples, 28, 28, 1]`, labels int32 0 to 9.
    """
    del data_dir
    arrays = _stored()
    x, y = _pixels(arrays["x_train"]), arrays["y_train"].astype(np.int32)
    test = Split(_pixels(arrays["x_test"]), arrays["y_test"].astype(np.int32))
    order = seeds.generator(_SPLIT_SEED, "mnist split").permutation(len(x))
    train, held_out = np.sort(order[_VALIDATION:]), np.sort(order[:_VALIDATION])
    return Dataset(
        train=Split(x[train], y[train]),
        validation=Split(x[held_out], y[held_out]),
        test=test,
        classes=10,
    )


@functools.cache  # Unpacking takes half a second, and a sweep loads often.
def _stored() -> dict[str, np.ndarray]:
    with np.load(_FILE) as arrays:
        return dict(arrays)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images[..., None].astype(np.float32) / np.float32(255)
