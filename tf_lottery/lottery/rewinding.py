"""This module knows what a level of the search restarts from."""

import numpy as np

from tf_lottery.core.masks import Masks
from tf_lottery.training import State


def rewind(origin: State, masks: Masks) -> State:
    """Returns mask ⊙ θk: the origin with pruned weights gone.

    Kernels are masked. Everything else is as it was at step k, bit for bit:
    biases, normalisation, moving statistics, random streams, the optimizer's
    step, and its slots, of which those of pruned weights are zero. With k = 0
    this is the paper's reset to θ0 (Frankle & Carbin 2019, Sec. 1); later
    steps are rewinding (Frankle et al. 2019, arXiv:1903.01611). Differs from
    open_lth, which starts the slots anew: here level L continues as the dense
    network would have continued from k, masks aside.

    Args:
        origin: The state at step k of the dense network's training.
        masks: What level L keeps.

    Returns:
        The state that level L trains from.

    Raises:
        ValueError: The masks do not fit the weights.
    """
    masks.require({p: w.shape for p, w in origin.weights.items() if p in masks})
    weights, slots = dict(origin.weights), dict(origin.slots)
    for path, mask in masks.items():
        weights[path] = _keep(weights[path], mask)
        for name, slot in origin.slots.items():
            if name.startswith(f"{path}/") and slot.shape == mask.shape:
                slots[name] = _keep(slot, mask)
    return State(origin.step, weights, slots)


def _keep(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, array, np.zeros_like(array))
