"""This package knows the experiments that have a name.

A preset is one file named network_dataset, and one line in `PRESETS`.
"""

from collections.abc import Mapping
from typing import Any

from tf_lottery import registries
from tf_lottery.core import registry
from tf_lottery.experiment.config import Config

PRESETS: Mapping[str, Mapping[str, Config]] = registries.PRESETS
"""Every preset by name: `"paper"` is the published setting, `"quick"` takes
minutes."""


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
