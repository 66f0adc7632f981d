"""This module knows in which order examples are seen."""

import numpy as np

from tf_lottery import seeds


def batches(
    seed: int, epoch: int, examples: int, batch_size: int
) -> np.ndarray:
    """Returns which examples make up each batch of one epoch.

    A full reshuffle each epoch (Frankle & Carbin 2019, G.1), and a function
    of the seed and the epoch alone, so that a rewound or resumed run sees
    what an uninterrupted one would have seen. Examples that do not fill the
    last batch sit this epoch out.

    Args:
        seed: Seed of the order, >= 0.
        epoch: Epochs before this one, >= 0.
        examples: Number of training examples.
        batch_size: Examples a batch.

    Returns:
        Indices of examples, int32 `[steps of the epoch, batch_size]`.

    Example:
        >>> batches(seed=0, epoch=0, examples=7, batch_size=3).shape
        (2, 3)
    """
    order = seeds.generator(seed, "order", epoch).permutation(examples)
    steps = examples // batch_size
    return (
        order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)
    )
