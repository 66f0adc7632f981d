"""Initializers of the paper's networks."""

import keras

from tf_lottery.core import seeds
from tf_lottery.core.errors import UserError


def gaussian(
    seed: int, name: str, sigma: float | None = None
) -> keras.initializers.Initializer:
    """Returns the initializer of one layer's kernel.

    Frankle & Carbin 2019 start every network from Gaussian Glorot (Fig. 2).
    Keras' `GlorotNormal` is a truncated normal, as in their code.

    Args:
        seed: Seed of the network's initial weights, >= 0.
        name: The layer's name. Each layer draws from a separate stream.
        sigma: Standard deviation of N(0, sigma^2), > 0, not truncated (App.
            G.5). `None` uses Glorot.

    Raises:
        UserError: `sigma` is not above 0.
    """
    key = seeds.integer(seed, "initialisation", name)
    if sigma is None:
        return keras.initializers.GlorotNormal(seed=key)
    if not sigma > 0:
        raise UserError(
            f"`sigma` must be above 0; got {sigma}. It is the standard "
            "deviation of the initial weights, such as 0.1."
        )
    return keras.initializers.RandomNormal(stddev=sigma, seed=key)
