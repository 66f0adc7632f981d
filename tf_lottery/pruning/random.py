"""This module knows the criterion that knows nothing."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from tf_lottery.core import seeds


@dataclasses.dataclass(frozen=True)
class Random:
    """Scores weights at random: every survivor is as likely to go.

    Zhou et al. 2019 (arXiv:1905.01067, Sec. 2); the floor that any criterion
    must beat. By name it takes the seed of the search. Scores are the same at
    every level: the order of what is left is still random, so the masks are
    nested random subsets, as if drawn anew (their code does that).

    Attributes:
        seed: Seed of the draw, >= 0.
    """

    seed: int = 0

    def __call__(
        self,
        trained: Mapping[str, np.ndarray],
        origin: Mapping[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Returns numbers in [0, 1), uniform and independent.

        Args:
            trained: Kernel path to trained weights; only their shapes count.
            origin: Kernel path to the weights that training started from; not
                needed here.

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
