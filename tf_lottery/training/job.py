"""This module knows what it takes to train one network."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np

from tf_lottery.core import seeds
from tf_lottery.training.state import State, digest


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """One network to train.

    Attributes:
        start: Where training starts; pruned weights are zero already.
        masks: Kernel path to bool array shaped as the kernel, one for each
            kernel that carries masks.
        seed: Seed of data order and augmentation, >= 0.
        capture: Steps whose states go into the record.
        keeps_slots: Whether the optimizer's variables at the end go into the
            record too.
        folder: Where training keeps its state as it goes, to go on from after
            a crash. None: nowhere.
        architecture: The model as JSON, if it is another one than that of the
            trainer, whose kernels it then has under the same paths.
    """

    start: State
    masks: Mapping[str, np.ndarray]
    seed: int = 0
    capture: tuple[int, ...] = ()
    folder: pathlib.Path | None = None
    keeps_slots: bool = False
    architecture: str | None = None

    @property
    def augmentation_key(self) -> int:
        """The key of all random choices of its augmentation."""
        return seeds.integer(self.seed, "augmentation") % 2**31

    @property
    def digest(self) -> str:
        """SHA-256 over where it starts, masks, seed and captured steps."""
        parts = (self.start.digest, digest(self.masks), self.seed, self.capture)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def require_obedience(self) -> None:
        """Raises a ValueError if the start does not obey the masks."""
        for path, mask in self.masks.items():
            if (self.start.weights[path][~mask] != 0).any():
                raise ValueError(
                    f"Kernel {path!r} holds weights where its mask prunes. "
                    "Rewind first: rewinding.rewind(state, masks)."
                )
