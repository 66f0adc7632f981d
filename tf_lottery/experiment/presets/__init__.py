"""This package knows the experiments that have a name.

A preset is one file named network_dataset, and one line in `PRESETS`.
"""

from collections.abc import Mapping
from typing import Any

from tf_lottery.core import registry
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.presets import (
    conv_2_cifar10,
    conv_4_cifar10,
    conv_6_cifar10,
    lenet_mnist,
    resnet_18_cifar10,
    vgg_19_cifar10,
)

PRESETS: dict[str, dict[str, Config]] = {
    module.__name__.rpartition(".")[2]: {
        "quick": module.QUICK,
        "paper": module.PAPER,
    }
    for module in (
        lenet_mnist,
        conv_2_cifar10,
        conv_4_cifar10,
        conv_6_cifar10,
        resnet_18_cifar10,
        vgg_19_cifar10,
    )
}
"""Every preset by name, at every scale (the paper's, and minutes)."""


def get(name: str, scale: str) -> Config:
    """Returns a preset at a scale, or says which there are."""
    return registry.get(registry.get(PRESETS, name, "preset"), scale, "scale")


_ELSEWHERE: dict[str, tuple[dict[str, Any], ...]] = {
    "lenet_mnist": ({"schedule": "one_shot"},),
    "resnet_18_cifar10": (
        {"learning_rate": 0.1, "warmup": "0it"},
        {"learning_rate": 0.01, "warmup": "0it"},
    ),
    "vgg_19_cifar10": (
        {"learning_rate": 0.1, "warmup": "0it"},
        {"learning_rate": 0.01, "warmup": "0it"},
    ),
}
"""What the paper changed of a preset (Fig. 4c; Sec. 4), and made claims of."""


def is_published(settings: Mapping[str, Any]) -> bool:
    """Returns whether settings are the paper's, any seed.

    They are if they are a preset's at paper scale, or what the paper compared
    that with.
    """
    if not settings:
        return False
    digest = Config().replace({**settings, "seed": 0}).digest
    return any(
        scales["paper"].replace(change).digest == digest
        for name, scales in PRESETS.items()
        for change in ({}, *_ELSEWHERE.get(name, ()))
    )
