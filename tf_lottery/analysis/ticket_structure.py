"""Weights and connections of the tickets of one replicate."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

Kernels = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TicketStructure:
    """Weights and masks of one replicate.

    Attributes:
        replicate: Index of the replicate.
        initial: Kernel path to initial weights of the dense network.
        trained: Kernel path to weights of the dense network at the end of
            training.
        masks: Level, from 0 on, to kernel path to mask, bool, True where a
            weight is kept.
        image: Height, width and channels of the input images; `None` if the
            network does not read flattened images.
        reader: Path of the kernel that reads the pixels; `""` if there is
            none.
    """

    replicate: int
    initial: Kernels
    trained: Kernels
    masks: Mapping[int, Kernels]
    image: tuple[int, int, int] | None = None
    reader: str = ""

    @property
    def layers(self) -> list[str]:
        """Paths of kernels with weights, `conv_2` before `conv_10`."""
        return sorted(
            (path for path in self.initial if self.masks[0][path].any()),
            key=lambda path: [
                (not part.isdigit(), int(part) if part.isdigit() else part)
                for part in re.split(r"(\d+)", path)
            ],
        )

    def density(self, level: int) -> float:
        """Returns the share of all weights that a level keeps, in [0, 1]."""
        masks = self.masks[level].values()
        return sum(int(m.sum()) for m in masks) / sum(m.size for m in masks)

    def layer_density(self, level: int, path: str) -> float:
        """Returns the share of a kernel's weights that a level keeps."""
        return float(self.masks[level][path].mean())

    def survivors(self, level: int, path: str) -> np.ndarray:
        """Returns the initial weights that a level keeps, `[kept]`."""
        return self.initial[path][self.masks[level][path]]

    def sides(self, level: int, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the masks of the kept and of the pruned weights."""
        kept = self.masks[level][path]
        return kept, self.masks[0][path] & ~kept

    def readers(self, level: int) -> np.ndarray:
        """Returns the number of weights per pixel, `[height, width]`."""
        if self.image is None:
            raise ValueError("No kernel reads an image.")
        mask = self.masks[level][self.reader]
        return mask.sum(axis=1).reshape(self.image).sum(axis=2)

    def moved(self, path: str) -> np.ndarray:
        """Returns |θT - θ0| of the dense network, in the kernel's shape."""
        return np.abs(self.trained[path] - self.initial[path])

    def grown(self, path: str) -> np.ndarray:
        """Returns |θT| - |θ0| of the dense network, in the kernel's shape."""
        return np.abs(self.trained[path]) - np.abs(self.initial[path])


def incoming(mask: np.ndarray) -> np.ndarray:
    """Returns the share of its inputs that each output unit keeps.

    Args:
        mask: Bool, `[..., inputs, outputs]`; a unit of a convolution is a
            channel.

    Example:
        >>> incoming(np.array([[True, False], [True, True]]))
        array([1. , 0.5])
    """
    return mask.reshape(-1, mask.shape[-1]).mean(axis=0)


def outgoing(mask: np.ndarray) -> np.ndarray:
    """Returns the share of its outputs that each input unit keeps.

    Args:
        mask: Bool, `[..., inputs, outputs]`; a unit of a convolution is a
            channel.

    Example:
        >>> outgoing(np.array([[True, False], [True, True]]))
        array([0.5, 1. ])
    """
    by_input = np.moveaxis(mask, -2, 0)
    return by_input.reshape(len(by_input), -1).mean(axis=1)
