"""Presets: named experiments of the paper, in files `network_dataset`."""

from collections.abc import Mapping
from typing import Any

from tf_lottery.core import registries, registry
from tf_lottery.experiment.config import Config

PRESETS: Mapping[str, Mapping[str, Config]] = registries.PRESETS
"""Every preset by name; `"paper"` is the published setting, `"quick"` takes
minutes."""


def get(name: str, scale: str) -> Config:
    """Returns a preset at a scale.

    Args:
        name: A name of `PRESETS`.
        scale: `"paper"` or `"quick"`.

    Raises:
        UserError: The name or the scale is unknown.
    """
    return registry.get(registry.get(PRESETS, name, "preset"), scale, "scale")


_VARIATIONS: dict[str, tuple[dict[str, Any], ...]] = {
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
"""Changed settings for which the paper makes claims too (Fig. 4c; Sec. 4)."""


def is_published(settings: Mapping[str, Any]) -> bool:
    """Returns whether settings are the paper's, with any seed.

    They are if they equal a preset at paper scale, or a variation of it that
    the paper compares it with.

    Args:
        settings: Settings by name; those not named have their defaults.
    """
    if not settings:
        return False
    digest = Config().replace({**settings, "seed": 0}).digest
    return any(
        scales["paper"].replace(change).digest == digest
        for name, scales in PRESETS.items()
        for change in ({}, *_VARIATIONS.get(name, ()))
    )
