"""Conversion between dense arrays and one vector of surviving weights."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_lottery.training.backends.sparse_cpu.connections import Layer
from tf_lottery.training.backends.sparse_cpu.dense_chain import Dense


class Layout:
    """The order of a network's survivors in one vector.

    Layer by layer: those of the kernel by flat index, then the biases.

    Args:
        dense: The layers.
        masks: Kernel path to bool array of the kernel's shape; kernels that
            are not named keep every weight.

    Attributes:
        masks: Path of every kernel and bias to its mask.
        layers: The layers, without paths.
    """

    def __init__(
        self, dense: Sequence[Dense], masks: Mapping[str, np.ndarray]
    ) -> None:
        self.masks: dict[str, np.ndarray] = {}
        self.layers = []
        for layer in dense:
            mask = np.asarray(
                masks.get(layer.kernel, np.ones(layer.shape, bool))
            )
            self.masks[layer.kernel] = mask
            if layer.bias:
                self.masks[layer.bias] = np.ones(layer.shape[1], bool)
            self.layers.append(Layer(mask, bool(layer.bias), layer.relu))

    def gather(
        self, arrays: Mapping[str, np.ndarray], slot: str = ""
    ) -> np.ndarray:
        """Returns the survivors of dense arrays, float32 `[survivors]`.

        Args:
            arrays: Path, followed by `slot`, to float32 array.
            slot: Suffix of the names of slots: `"/momentum"`; empty for
                weights.

        Raises:
            ValueError: An array is missing, has another shape or dtype, or is
                not 0 where pruned.
        """
        return np.concatenate(
            [
                _checked(path + slot, arrays, mask)[mask]
                for path, mask in self.masks.items()
            ]
        )

    def scatter(
        self, survivors: np.ndarray, slot: str = ""
    ) -> dict[str, np.ndarray]:
        """Returns dense arrays, 0 where pruned; undoes `gather`.

        Args:
            survivors: float32 `[survivors]`.
            slot: Suffix of the names of slots; empty for weights.
        """
        arrays: dict[str, np.ndarray] = {}
        first = 0
        for path, mask in self.masks.items():
            array = np.zeros(mask.shape, np.float32)
            count = int(mask.sum())
            array[mask] = survivors[first : first + count]
            arrays[path + slot] = array
            first += count
        return arrays


def _checked(
    name: str, arrays: Mapping[str, np.ndarray], mask: np.ndarray
) -> np.ndarray:
    """Returns an array after checking it against its mask."""
    if name not in arrays:
        raise ValueError(f"{name!r} is missing from the start.")
    array = arrays[name]
    if array.shape != mask.shape or array.dtype != np.float32:
        raise ValueError(
            f"{name!r} must be float32 {mask.shape}; got {array.dtype} "
            f"{array.shape}."
        )
    if array[~mask].any():
        raise ValueError(
            f"{name!r} is not 0 where its mask prunes. Rewind first: "
            "rewinding.rewind(state, masks)."
        )
    return array
