"""The criterion that scores weights at random."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tf_lottery.core import seeds


@dataclasses.dataclass(frozen=True)
class Random:
    """Scores weights at random: each survivor is equally likely to be pruned.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 2); the baseline that any
    criterion must beat. Selected by name, it uses the seed of the search.
    Scores are the same at every level. The survivors are still in random
    order, so masks are nested random subsets, with the same distribution as
    redrawn scores (which the authors' code uses).

    Attributes:
        seed: Seed of the draw, >= 0.
    """

    seed: int = 0

    def __call__(
        self,
        trained: Mapping[str, np.ndarray],
        origin: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Returns independent uniform numbers in [0, 1).

        Args:
            trained: Kernel path to trained weights; only shapes are used.
            origin: Kernel path to the weights that training restarts from;
                ignored.

        Example:
            >>> kernels = {"dense/kernel": np.zeros((2, 3))}
            >>> Random(seed=0)(kernels, kernels)["dense/kernel"].shape
            (2, 3)
        """
        del origin
        return {
            path: seeds.generator(self.seed, "random criterion", path).random(
                kernel.shape
            )
            for path, kernel in trained.items()
        }


random = Random()
"""The criterion `"random"`, with seed 0."""
