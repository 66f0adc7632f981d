"""Masks from scores and budgets."""

from collections.abc import Mapping

import numpy as np

from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.pruning import allocation as allocations

Scores = Mapping[str, np.ndarray]


def prune(
    scores: Scores,
    masks: Masks,
    density: float,
    allocation: "str | allocations.Allocation" = "layerwise",
) -> Masks:
    """Returns the masks that keep the best-scored survivors at a density.

    Args:
        scores: Kernel path to score of every weight, shaped as the kernel;
            the highest are kept. Scores of pruned weights are ignored.
        masks: Masks of the current survivors.
        density: The fraction of all weights to keep, in (0, 1], at most the
            current one. Counts are rounded to nearest, halves to even.
        allocation: How the budget is shared among kernels: `"layerwise"`
            (each kernel at this density), `"global"` (the best overall),
            `"evenly"`, `"erk"` (small kernels denser), or a callable, see
            `allocation.Allocation`.

    Returns:
        Masks within `masks`, with exactly the stated number of weights.

    Raises:
        UserError: The density is out of range, or keeps no weight of a
            kernel; scores do not fit the masks, or contain nan.

    Example:
        >>> scores = {"dense/kernel": np.array([[4.0, 1.0], [2.0, 3.0]])}
        >>> masks = Masks.ones({"dense/kernel": (2, 2)})
        >>> prune(scores, masks, density=0.5)["dense/kernel"]
        array([[ True, False],
               [False,  True]])
    """
    if not 0 < density <= 1:
        raise UserError(
            f"`density` must be in (0, 1]; got {density}. "
            "It is the fraction of weights to keep."
        )
    sizes = {path: mask.size for path, mask in masks.items()}
    budgets = allocations.get(allocation)(
        sizes, lambda size: round(density * size), masks
    )
    return keep_best(scores, masks, budgets)


def keep_best(
    scores: Scores, masks: Masks, budgets: allocations.Budgets
) -> Masks:
    """Returns the masks that keep the stated number of best weights.

    Counts are exact: both published codebases of the lottery ticket
    hypothesis cut at a threshold and prune one weight too many. Among
    equal scores, the first are kept, ordered by kernel path and then by flat
    index.

    Args:
        scores: Kernel path to scores; the highest are kept.
        masks: Masks of the current survivors.
        budgets: Group of kernel paths to the number of weights that the group
            keeps. Kernels in no group are not pruned.

    Returns:
        Masks within `masks`.

    Raises:
        UserError: A budget is below 1 or above the number of survivors;
            scores do not fit the masks, or contain nan.
    """
    pruned = dict(masks)
    for group, keep in budgets.items():
        paths = sorted(group)
        alive = sum(int(masks[path].sum()) for path in paths)
        _check_budget(paths, keep, alive, sum(masks[p].size for p in paths))
        ranked = np.concatenate([_survivors(scores, masks, p) for p in paths])
        survives = _best(ranked, keep)
        for path in paths:
            mask = masks[path].copy()
            count = int(mask.sum())
            mask[mask], survives = survives[:count], survives[count:]
            pruned[path] = mask
    return Masks(pruned)


def _best(scores: np.ndarray, keep: int) -> np.ndarray:
    """Returns where the highest scores are; among equal ones, the first."""
    last = len(scores) - keep
    lowest_kept = np.partition(scores, last)[last]  # no sort: linear time
    is_best = scores > lowest_kept
    ties = np.flatnonzero(scores == lowest_kept)
    is_best[ties[: keep - int(is_best.sum())]] = True
    return is_best


def _survivors(scores: Scores, masks: Masks, path: str) -> np.ndarray:
    if path not in scores:
        raise UserError(
            f"No scores for kernel {path!r}; got scores for "
            f"{', '.join(scores)}."
        )
    values = np.asarray(scores[path])
    if values.shape != masks[path].shape:
        raise UserError(
            f"The scores of {path!r} have shape {values.shape}; the kernel "
            f"has shape {masks[path].shape}."
        )
    ranked = values[masks[path]]
    if ranked.dtype not in (np.float16, np.float32):
        ranked = ranked.astype(np.float64)
    if np.isnan(ranked).any():
        raise UserError(
            f"The scores of {path!r} hold {int(np.isnan(ranked).sum())} nan. "
            "Did its training diverge?"
        )
    return ranked


def _check_budget(paths: list[str], keep: int, alive: int, size: int) -> None:
    if keep > alive:
        raise UserError(
            f"`density` must be at most the current {alive / size:.4g} for "
            f"{', '.join(paths)}; got {keep / size:.4g}. Densities only fall: "
            "check the schedule."
        )
    if keep < 1:
        raise UserError(
            f"No weight of {', '.join(paths)} would be left ({alive} of "
            f"{size} now). Prune less, or leave the kernel out of pruning."
        )
