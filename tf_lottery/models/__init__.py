"""Networks of the literature, as plain Keras models."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

from tf_lottery.core import registries, registry

MODELS: Mapping[str, Callable[..., keras.Model]] = registries.MODELS
"""Every model by name."""


def build_model(
    name: str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    seed: int = 0,
    **options: Any,
) -> keras.Model:
    """Returns a network of the literature, newly initialized.

    The networks of Frankle & Carbin 2019 (arXiv:1803.03635, Fig. 2).

    Args:
        name: `"lenet_300_100"` for MNIST; `"conv_2"`, `"conv_4"`, `"conv_6"`,
            `"resnet_18"`, `"vgg_19"` for CIFAR-10.
        input_shape: Shape of one example. `None` takes the paper's.
        classes: Number of classes. `None` takes the paper's.
        seed: Seed of the initial weights, >= 0: same seed, same weights.
        **options: Further arguments of the network: `units` and `sigma` of
            `lenet_300_100`, `dropout` of `conv_2`, `conv_4` and `conv_6`.

    Raises:
        UserError: The name or an option is unknown (the message lists the
            known ones), or its value is not accepted.

    Example:
        >>> model = build_model("lenet_300_100", (2, 2), units=(3,), classes=5)
        >>> model.count_params()  # (4 + 1) * 3 + (3 + 1) * 5
        35
    """
    build = registry.get(MODELS, name, "model")
    known = inspect.signature(build).parameters
    for option in options:
        registry.get(known, option, f"option of {name}")
    if input_shape is not None:
        options["input_shape"] = input_shape
    if classes is not None:
        options["classes"] = classes
    return build(seed=seed, **options)


__all__ = ["MODELS", "build_model"]
