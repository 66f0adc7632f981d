"""This package knows the experiments that have a name.

A preset is one file named network_dataset, and one line in `PRESETS`.
"""

from tf_lottery import lookup
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.presets import lenet_mnist

PRESETS: dict[str, dict[str, Config]] = {
    "lenet_mnist": {"quick": lenet_mnist.QUICK, "paper": lenet_mnist.PAPER},
}
"""Every preset by name, at every scale: the published setting, and minutes."""


def find(name: str, scale: str) -> Config:
    """Returns a preset at a scale, or says which there are."""
    return lookup.find(lookup.find(PRESETS, name, "preset"), scale, "scale")
