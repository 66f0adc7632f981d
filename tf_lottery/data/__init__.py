"""Data sets to train, validate and test on."""

from collections.abc import Callable, Mapping

from tf_lottery.core import registries, registry
from tf_lottery.core.errors import UserError
from tf_lottery.data import catalogue, tfds
from tf_lottery.data.augmentation import AUGMENTATIONS, Augmentation
from tf_lottery.data.catalogue import DataDir
from tf_lottery.data.dataset import Dataset, Split, from_arrays

DATASETS: Mapping[str, Callable[[DataDir], Dataset]] = registries.DATASETS
"""Every data set by name; each takes the folder of TensorFlow Datasets."""


def load_dataset(name: str, data_dir: DataDir = None) -> Dataset:
    """Returns a data set by name.

    Args:
        name: `"mnist"`, which ships with the package; or an image
            classification set of TensorFlow Datasets (TFDS), such as
            `"fashion_mnist"`, `"cifar10"`, `"cifar100"`. `data.tfds.load`
            documents their splits and normalization.
        data_dir: The folder that TFDS prepares data sets in; a missing set is
            downloaded to it once. `None` uses TFDS's default,
            `~/tensorflow_datasets`.

    Raises:
        UserError: The name is unknown, and the message lists the known ones;
            or the set is not available, and the message says how to get it.
    """
    if name in DATASETS:
        return DATASETS[name](data_dir)
    if not catalogue.knows(name, data_dir):
        near = registry.nearest(name, [*DATASETS, *catalogue.names()])
        raise UserError(
            f"Unknown data set {name!r}.{near} Known: {', '.join(DATASETS)}, "
            "and the image classification sets of "
            "https://www.tensorflow.org/datasets/catalog."
        )
    return tfds.load(name, data_dir)


__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "DATASETS",
    "DataDir",
    "Dataset",
    "Split",
    "from_arrays",
    "load_dataset",
]
