"""This module knows what tickets are made of: weights and connections."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from tf_lottery.core.errors import UserError

Kernels = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TicketStructure:
    """The tickets of one replicate, taken apart.

    Attributes:
        replicate: Which.
        initial: Kernel path to the dense network's initial weights.
        trained: Kernel path to its weights at the end of its training.
        masks: Level to kernel path to what is kept, bool, of the same shape;
            level 0 among them.
        image: The shape of the images that are put in, height, width and
            channels; None if they are none, or not flattened.
        reader: The path of the kernel that reads their pixels; `""` if none.
    """

    replicate: int
    initial: Kernels
    trained: Kernels
    masks: Mapping[int, Kernels]
    image: tuple[int, int, int] | None = None
    reader: str = ""

    @property
    def layers(self) -> list[str]:
        """The kernels' paths, `conv_2` before `conv_10`; no empty ones."""
        return sorted(
            (path for path in self.initial if self.masks[0][path].any()),
            key=lambda path: [
                (not part.isdigit(), int(part) if part.isdigit() else part)
                for part in re.split(r"(\d+)", path)
            ],
        )

    def density(self, level: int) -> float:
        """Returns the share of all weights that a level keeps."""
        masks = self.masks[level].values()
        return sum(int(m.sum()) for m in masks) / sum(m.size for m in masks)

    def layer_density(self, level: int, path: str) -> float:
        """Returns the share of one kernel's weights that a level keeps."""
        return float(self.masks[level][path].mean())

    def survivors(self, level: int, path: str) -> np.ndarray:
        """Returns the initial weights that a level keeps, `[kept]`."""
        return self.initial[path][self.masks[level][path]]

    def sides(self, level: int, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns masks of the weights kept, and of those pruned by then."""
        kept = self.masks[level][path]
        return kept, self.masks[0][path] & ~kept

    def readers(self, level: int) -> np.ndarray:
        """Returns how many weights read each pixel, `[height, width]`."""
        if self.image is None:
            raise UserError("No kernel reads an image.")
        mask = self.masks[level][self.reader]
        return mask.sum(axis=1).reshape(self.image).sum(axis=2)

    def moved(self, path: str) -> np.ndarray:
        """Returns |θT - θ0| of the dense network, of a kernel's shape."""
        return np.abs(self.trained[path] - self.initial[path])

    def grown(self, path: str) -> np.ndarray:
        """Returns |θT| - |θ0| of the dense network, of a kernel's shape."""
        return np.abs(self.trained[path]) - np.abs(self.initial[path])


def incoming(mask: np.ndarray) -> np.ndarray:
    """Returns the share of its inputs that each output unit keeps.

    Args:
        mask: Bool, `[..., inputs, outputs]`; a convolution's unit is a
            channel.

    Example:
        >>> incoming(np.array([[True, False], [True, True]]))
        array([1. , 0.5])
    """
    return mask.reshape(-1, mask.shape[-1]).mean(axis=0)


def outgoing(mask: np.ndarray) -> np.ndarray:
    """Returns the share of its outputs that each input unit keeps.

    Example:
        >>> outgoing(np.array([[True, False], [True, True]]))
        array([0.5, 1. ])
    """
    by_input = np.moveaxis(mask, -2, 0)
    return by_input.reshape(len(by_input), -1).mean(axis=1)
