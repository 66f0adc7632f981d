"""This module knows where a network's survivors stand in its dense arrays."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_lottery.training.backends.sparse_cpu.connections import Layer
from tf_lottery.training.backends.sparse_cpu.dense_chain import Dense


class Layout:
    """The survivors of a chain of dense layers, one after the other.

    They stand layer by layer: a kernel's by flat index, then the biases.

    Args:
        dense: The layers.
        masks: Kernel path to bool array of the kernel's shape; kernels that
            are not named keep every weight.
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
            self.layers.append(Layer(mask, bool(layer.bias), layer.rectified))

    def gathered(
        self, arrays: Mapping[str, np.ndarray], slot: str = ""
    ) -> np.ndarray:
        """Returns the survivors of dense arrays, float32 `[survivors]`.

        Args:
            arrays: Arrays by path, or slots by path and name of the slot.
            slot: What follows the path in its name: `"/momentum"`.

        Raises:
            ValueError: An array is missing, of another shape or type, or not
                0 where pruned.
        """
        return np.concatenate(
            [
                _fitting(path + slot, arrays, mask)[mask]
                for path, mask in self.masks.items()
            ]
        )

    def spread(
        self, survivors: np.ndarray, slot: str = ""
    ) -> dict[str, np.ndarray]:
        """Returns dense arrays, 0 where pruned; undoes `gathered`."""
        arrays: dict[str, np.ndarray] = {}
        first = 0
        for path, mask in self.masks.items():
            array = np.zeros(mask.shape, np.float32)
            count = int(mask.sum())
            array[mask] = survivors[first : first + count]
            arrays[path + slot] = array
            first += count
        return arrays


def _fitting(
    name: str, arrays: Mapping[str, np.ndarray], mask: np.ndarray
) -> np.ndarray:
    """Returns one of the arrays, if it is what its mask asks for."""
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
