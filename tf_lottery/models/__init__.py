"""This package knows the networks of the literature, as plain Keras models.

A model is a function of one file and one line in `MODELS`.
"""

from collections.abc import Callable

import keras

from tf_lottery import lookup
from tf_lottery.models.lenet import lenet_300_100

MODELS: dict[str, Callable[..., keras.Model]] = {
    "lenet_300_100": lenet_300_100,
}
"""Every model by name."""


def build_model(
    name: str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> keras.Model:
    """Returns a network of the literature, freshly initialised.

    Args:
        name: `"lenet_300_100"`.
        input_shape: Shape of one example. None: as in the paper.
        classes: Number of classes. None: as in the paper.
        seed: Seed of the initialisation, >= 0: same seed, same weights.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.
    """
    build = lookup.find(MODELS, name, "model")
    given = {"input_shape": input_shape, "classes": classes}
    return build(
        **{key: value for key, value in given.items() if value is not None},
        seed=seed,
    )


__all__ = ["MODELS", "build_model", "lenet_300_100"]
