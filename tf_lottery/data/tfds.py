"""Image classification sets of TensorFlow Datasets."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.core import seeds
from tf_lottery.core.errors import UserError, one_line
from tf_lottery.data import catalogue
from tf_lottery.data.dataset import Dataset, Split

_MOST_HELD_OUT = 5_000
_SPLIT_SEED = 0
_BATCH = 1_000

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

CHANNELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": _IMAGENET,
    "cifar100": _IMAGENET,
}
"""Mean and standard deviation of each channel of pixels in [0, 1], by set.

Frankle & Carbin 2019 state no normalization. Frankle's code (open_lth,
datasets/cifar10.py) uses these values, those of ImageNet, for CIFAR-10; it has
no CIFAR-100, which uses the same here. Other sets are only scaled to [0, 1],
as by Zhou et al. 2019 (arXiv:1905.01067).
"""


def load(name: str, data_dir: catalogue.DataDir = None) -> Dataset:
    """Returns an image classification set of TensorFlow Datasets (TFDS).

    The set is read from the folder of TFDS, or downloaded once. Validation data
    is the set's `validation` split. Without one, a tenth of the training data
    but at most 5,000 examples are held out, drawn once from a fixed seed and
    shared by all replicates: 5,000 of CIFAR and Fashion-MNIST (Frankle & Carbin
    2019, G.1, H.1: sampled at random from the training set; the paper does not
    say whether once for all replicates). A set without a `test` split has no
    test data.

    All examples are held in memory, with 4 bytes per pixel and channel.

    Args:
        name: The name in TFDS: `"cifar10"`, `"emnist/letters"`,
            `"svhn_cropped:3.1.0"`.
        data_dir: The folder that TFDS prepares data sets in. `None` uses TFDS's
            default, `~/tensorflow_datasets`.

    Returns:
        Inputs float32 `[examples, height, width, channels]`, pixels scaled to
        [0, 1] and then standardized by `CHANNELS`; labels int32.

    Raises:
        UserError: The set is not available, or does not consist of 8-bit images
            of one size with one label each.
    """
    builder = catalogue.get(name, data_dir)
    keys = _keys(name, builder.info)
    catalogue.fetch(builder, name, data_dir)
    if "train" not in builder.info.splits:
        raise UserError(
            f"Data set {name!r} has no split named 'train', only "
            f"{', '.join(builder.info.splits)}."
        )
    parts = {
        part: _read(builder, name, part, keys)
        for part in ("train", "validation", "test")
        if part in builder.info.splits
    }
    if len({images.shape[1:] for images, _ in parts.values()}) > 1:
        raise _size_error(name, *(images for images, _ in parts.values()))
    if "validation" not in parts:
        parts |= _held_out(builder.name, *parts["train"])
    splits = {part: _split(builder.name, *parts.pop(part)) for part in [*parts]}
    return Dataset(
        splits["train"],
        splits.get("validation"),
        splits.get("test"),
        classes=builder.info.features[keys[1]].num_classes,
    )


fashion_mnist = functools.partial(load, "fashion_mnist")
cifar10 = functools.partial(load, "cifar10")
cifar100 = functools.partial(load, "cifar100")


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Returns the names of the features that are images and labels."""
    import tensorflow_datasets as tfds

    features, keys = dict(info.features.items()), info.supervised_keys
    if isinstance(keys, tuple) and len(keys) == 2:
        image, label = (features.get(key) for key in keys)
        if (
            isinstance(image, tfds.features.Image)
            and isinstance(label, tfds.features.ClassLabel)
            and image.np_dtype == np.uint8
        ):
            return keys
    listing = ", ".join(
        f"{k} ({type(features[k]).__name__})" for k in sorted(features)
    )
    raise UserError(
        f"Data set {name!r} is not one of 8-bit images with a class label "
        f"each: its supervised keys are {keys}, its features {listing}. "
        "Load it yourself, and pass the arrays to TicketSearch.fit."
    )


def _read(
    builder: Any, name: str, part: str, keys: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 and labels int32 of a split, in TFDS's order."""
    import tensorflow_datasets as tfds

    sized = None not in builder.info.features[keys[0]].shape
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    try:
        examples = builder.as_dataset(
            split=part,
            as_supervised=True,
            shuffle_files=False,
            # One file after the other, so no setting changes the order.
            read_config=tfds.ReadConfig(
                interleave_cycle_length=1, try_autocache=False
            ),
        )
        for x, y in tfds.as_numpy(examples.batch(_BATCH if sized else 1)):
            if images and x.shape[1:] != images[0].shape[1:]:
                raise _size_error(name, images[0], x)
            images.append(x)
            labels.append(y)
    except (tf.errors.OpError, OSError) as error:
        raise UserError(
            f"The {part} split of data set {name!r} cannot be read from "
            f"{str(builder.data_dir)!r}: {one_line(error)}. Delete "
            "that folder, and prepare it again."
        ) from error
    if not images:
        raise UserError(f"The {part} split of data set {name!r} is empty.")
    y = np.concatenate(labels).astype(np.int32)
    if y.min() < 0:
        raise UserError(
            f"Data set {name!r} has {int((y < 0).sum())} examples without a "
            f"label in its split {part!r}. Load it yourself, without them."
        )
    return np.concatenate(images), y


def _size_error(name: str, *images: np.ndarray) -> UserError:
    sizes = sorted({x.shape[1:] for x in images})
    return UserError(
        f"Images of data set {name!r} differ in size: some are "
        f"{' and some '.join(map(str, sizes))}. Resize them yourself, and pass "
        "the arrays to TicketSearch.fit."
    )


def _held_out(
    name: str, x: np.ndarray, y: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns nine tenths for training, and a tenth for validation."""
    held_out = min(len(x) // 10, _MOST_HELD_OUT)
    if not held_out:
        return {}
    order = seeds.generator(_SPLIT_SEED, f"{name} split").permutation(len(x))
    rows = {
        "train": np.sort(order[held_out:]),
        "validation": np.sort(order[:held_out]),
    }
    return {part: (x[r], y[r]) for part, r in rows.items()}


def _split(name: str, images: np.ndarray, labels: np.ndarray) -> Split:
    x = images.astype(np.float32)
    x /= np.float32(255)
    if name in CHANNELS:
        mean, deviation = CHANNELS[name]
        x -= np.array(mean, np.float32)
        x /= np.array(deviation, np.float32)
    return Split(x, labels)
