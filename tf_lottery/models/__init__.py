"""This package knows the networks of the literature, as plain Keras models.

A model is a function of one file and one line in `MODELS`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tf_lottery import registries
from tf_lottery.core import registry

MODELS: Mapping[str, Callable[..., keras.Model]] = registries.MODELS
"""Every model by name."""


def build_model(
    name: str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    seed: int = 0,
    **options: Any,
) -> keras.Model:
    """Returns a network of the literature, freshly initialised.

    The networks of Frankle & Carbin 2019 (arXiv:1803.03635, Fig. 2).

    Args:
        name: `"lenet_300_100"` for MNIST; `"conv_2"`, `"conv_4"`, `"conv_6"`,
            `"resnet_18"`, `"vgg_19"` for CIFAR-10.
        input_shape: Shape of one example. None: as in the paper.
        classes: Number of classes. None: as in the paper.
        seed: Seed of the initialisation, >= 0: same seed, same weights.
        **options: What else the network takes: `units` and `sigma` of
            `lenet_300_100`, `dropout` of `conv_2`, `conv_4` and `conv_6`.

    Raises:
        ValueError: The name or an option is unknown (the message lists the
            known ones), or the network cannot be built so.

    Example:
        >>> model = build_model("lenet_300_100", (2, 2), units=(3,), classes=5)
        >>> model.count_params()  # (4 + 1) * 3 + (3 + 1) * 5
        35
    """
    build = registry.get(MODELS, name, "model")
    known = inspect.signature(build).parameters
    for option in options:
        registry.get(known, option, f"option of {name}")
    given = {"input_shape": input_shape, "classes": classes}
    return build(
        **{key: value for key, value in given.items() if value is not None},
        seed=seed,
        **options,
    )


__all__ = ["MODELS", "build_model"]
