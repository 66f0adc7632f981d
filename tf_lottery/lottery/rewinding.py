"""Rewinding: the state that each level of the search restarts from."""

import numpy as np

from tf_lottery.core.masks import Masks
from tf_lottery.training import State
from tf_lottery.training.state import Arrays


def rewind(origin: State, masks: Masks) -> State:
    """Returns mask ⊙ θk, the state that training restarts from.

    Kernels and their slots are masked. Everything else is as it was at step
    k, bit for bit: biases, normalization, moving statistics, random streams,
    the optimizer's step. With k = 0 this is the paper's reset to θ0 (Frankle &
    Carbin 2019, Sec. 1); later steps are rewinding (Frankle et al. 2019,
    arXiv:1903.01611). Differs from open_lth, which resets the slots: with
    rewinding here, level L continues as the dense network would have continued
    from step k, except for the masks.

    Args:
        origin: The state at step k of the dense network's training.
        masks: The masks of the level.

    Raises:
        ValueError: The masks do not fit the weights.
    """
    weights = apply_masks(origin.weights, masks)
    slots = dict(origin.slots)
    for path, mask in masks.items():
        for name, slot in origin.slots.items():
            if name.startswith(f"{path}/") and slot.shape == mask.shape:
                slots[name] = _masked(slot, mask)
    return State(origin.step, weights, slots)


def apply_masks(weights: Arrays, masks: Masks) -> dict[str, np.ndarray]:
    """Returns weights with pruned values at zero.

    Args:
        weights: Path to value of a model's variables.
        masks: Kernel path to mask.

    Raises:
        ValueError: The masks do not fit the weights.
    """
    masks.require({p: w.shape for p, w in weights.items() if p in masks})
    return {
        path: _masked(value, masks[path]) if path in masks else value
        for path, value in weights.items()
    }


def _masked(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    # Not a product: a pruned value may be infinite.
    return np.where(mask, array, np.zeros_like(array))
