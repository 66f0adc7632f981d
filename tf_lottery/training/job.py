"""One network to train: where it starts, its masks, its seed."""

import dataclasses
import functools
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
        start: The state that training starts from; pruned weights are 0.
        masks: Kernel path to bool array of the kernel's shape, for every
            kernel that carries masks.
        seed: Seed of data order and augmentation, >= 0.
        capture: Steps whose states are returned with the result.
        folder: Folder for checkpoints, to continue from after a crash. None:
            no checkpoints are written.
        keeps_slots: Whether the result holds the optimizer's variables at the
            end.
        architecture: The model as JSON, if it differs from that of the
            trainer; its kernels have the same paths.
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
        """Key of all random choices of the augmentation, int32, >= 0."""
        return seeds.integer(self.seed, "augmentation") % 2**31

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the start, masks, seed and captured steps."""
        parts = (self.start.digest, digest(self.masks), self.seed, self.capture)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def require_pruned_zero(self) -> None:
        """Raises ValueError if a pruned weight of the start is not 0."""
        for path, mask in self.masks.items():
            if (self.start.weights[path][~mask] != 0).any():
                raise ValueError(
                    f"Kernel {path!r} holds weights where its mask prunes. "
                    "Rewind first: rewinding.rewind(state, masks)."
                )
