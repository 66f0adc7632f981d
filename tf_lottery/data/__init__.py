"""This package knows the data that networks learn from.

A data set of the package is one function and one line in `DATASETS`.
"""

from collections.abc import Callable

from tf_lottery import lookup
from tf_lottery.data.dataset import Dataset, Split, from_arrays
from tf_lottery.data.mnist import mnist

DATASETS: dict[str, Callable[[], Dataset]] = {"mnist": mnist}
"""Every data set by name."""


def load_dataset(name: str) -> Dataset:
    """Returns a data set of the package by name.

    Args:
        name: `"mnist"`.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    return lookup.find(DATASETS, name, "data set")()


__all__ = ["DATASETS", "Dataset", "Split", "from_arrays", "load_dataset"]
