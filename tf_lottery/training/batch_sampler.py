"""The order in which training examples are seen."""

import numpy as np

from tf_lottery.core import seeds


def epoch_order(
    seed: int, epoch: int, examples: int, shuffle: bool = True
) -> np.ndarray:
    """Returns the order of the examples in one epoch.

    Every epoch is shuffled over all examples (Frankle & Carbin 2019, G.1). The
    order is a function of seed and epoch only, so a rewound or resumed run
    sees the same batches as an uninterrupted one.

    Args:
        seed: Seed of the order, >= 0.
        epoch: Epochs before this one, >= 0.
        examples: Number of training examples.
        shuffle: Whether to shuffle; if not, the order is that of the data.

    Returns:
        Indices of examples, int32 `[examples]`.

    Example:
        >>> sorted(epoch_order(seed=0, epoch=0, examples=3).tolist())
        [0, 1, 2]
    """
    if not shuffle:
        return np.arange(examples, dtype=np.int32)
    generator = seeds.generator(seed, "order", epoch)
    return generator.permutation(examples).astype(np.int32)
