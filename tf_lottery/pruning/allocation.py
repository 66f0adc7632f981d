"""Allocations: how a budget of weights is shared among kernels."""

import bisect
from collections.abc import Callable, Mapping
from fractions import Fraction

from tf_lottery.core import registries, registry
from tf_lottery.core.masks import Masks

Budgets = Mapping[tuple[str, ...], int]
"""Group of kernels to the number of weights that the group keeps."""

Allocation = Callable[[Mapping[str, int], Callable[[int], int], Masks], Budgets]
"""Function of kernel sizes, `keep` and the current masks, returning budgets.

`keep(n)` is the number of weights to keep of n. The masks may include other
kernels too.
"""


def layerwise(
    sizes: Mapping[str, int], keep: Callable[[int], int], masks: Masks
) -> dict[tuple[str, ...], int]:
    """Returns the same density for every kernel (Frankle & Carbin, Sec. 2).

    Args:
        sizes: Kernel path to number of weights.
        keep: Function from a number of weights to how many of them to keep.
        masks: Current masks, of these kernels and perhaps others.

    Example:
        >>> ones = Masks.ones({"a": (2, 5), "b": (10, 10)})
        >>> layerwise({"a": 10, "b": 100}, lambda size: size // 2, ones)
        {('a',): 5, ('b',): 50}
    """
    del masks
    return {(path,): keep(size) for path, size in sizes.items()}


def global_(
    sizes: Mapping[str, int], keep: Callable[[int], int], masks: Masks
) -> dict[tuple[str, ...], int]:
    """Returns one budget that all kernels share.

    Frankle & Carbin 2019, Sec. 4, prune deep networks in this way: otherwise
    small layers become bottlenecks.

    Args:
        sizes: Kernel path to number of weights.
        keep: Function from a number of weights to how many of them to keep.
        masks: Current masks, of these kernels and perhaps others.

    Example:
        >>> ones = Masks.ones({"a": (2, 5), "b": (10, 10)})
        >>> global_({"a": 10, "b": 100}, lambda size: size // 2, ones)
        {('a', 'b'): 55}
    """
    del masks
    return {tuple(sizes): keep(sum(sizes.values()))}


def evenly(
    sizes: Mapping[str, int], keep: Callable[[int], int], masks: Masks
) -> dict[tuple[str, ...], int]:
    """Returns one density for every kernel, and the exact total of them all.

    "Uniform" of Evci et al. 2020 (arXiv:1911.11134, Sec. 3). With `layerwise`
    every kernel is rounded separately and the roundings add up; here the total
    equals that of `global`. A kernel with fewer survivors than its share keeps
    them all, and the others share the remainder. Every kernel keeps at least
    one weight.

    Args:
        sizes: Kernel path to number of weights.
        keep: Function from a number of weights to how many of them to keep.
        masks: Current masks, of these kernels and perhaps others.

    Example:
        >>> ones = Masks.ones({"a": (1, 3), "b": (1, 3), "c": (2, 5)})
        >>> sizes = {"a": 3, "b": 3, "c": 10}
        >>> evenly(sizes, lambda size: size // 2, ones)
        {('a',): 2, ('b',): 1, ('c',): 5}
    """
    return _shared(keep(sum(sizes.values())), sizes, masks)


def erk(
    sizes: Mapping[str, int], keep: Callable[[int], int], masks: Masks
) -> dict[tuple[str, ...], int]:
    """Returns Erdős–Rényi-Kernel budgets: small kernels stay denser.

    Evci et al. 2020 (arXiv:1911.11134, Sec. 3), after Mocanu et al. 2018
    (arXiv:1707.04780): the density of a kernel is proportional to the sum of
    its dimensions over their product, height and width included, so its count
    is proportional to the sum. A kernel whose density would exceed 1 stays
    dense, and the others share the rest in the same proportion.

    Differs from the authors' code in three ways. The total is exact: they round
    each kernel separately, this function rounds up the largest remainders. The
    cap is the number of survivors, not the size, so masks only shrink. Every
    kernel keeps at least one weight.

    Args:
        sizes: Kernel path to number of weights.
        keep: Function from a number of weights to how many of them to keep.
        masks: Current masks, of these kernels and perhaps others.

    Example:
        Dimensions add up to 4, 8 and 16, so 14 weights are 2, 4 and 8; of 28,
        the 4 of "a" leave 24, which are 8 and 16.

        >>> ones = Masks.ones({"a": (2, 2), "b": (4, 4), "c": (8, 8)})
        >>> sizes = {"a": 4, "b": 16, "c": 64}
        >>> erk(sizes, lambda size: size // 6, ones)
        {('a',): 2, ('b',): 4, ('c',): 8}
        >>> erk(sizes, lambda size: size // 3, ones)
        {('a',): 4, ('b',): 8, ('c',): 16}
    """
    shares = {path: sum(masks[path].shape) for path in sizes}
    return _shared(keep(sum(sizes.values())), shares, masks)


ALLOCATIONS: Mapping[str, Allocation] = registries.ALLOCATIONS
"""Every allocation by name."""


def get(allocation: str | Allocation) -> Allocation:
    """Returns the allocation of that name, or the callable itself.

    Args:
        allocation: A name of `ALLOCATIONS`, or a callable.

    Raises:
        UserError: The name is unknown.
    """
    if callable(allocation):
        return allocation
    return registry.get(ALLOCATIONS, allocation, "allocation")


def _shared(
    total: int, shares: Mapping[str, int], masks: Masks
) -> dict[tuple[str, ...], int]:
    """Returns budgets in proportion to shares, capped by the survivors.

    Kernels without survivors get no budget, and are not pruned.
    """
    alive = {path: int(masks[path].sum()) for path in sorted(shares)}
    caps = {path: count for path, count in alive.items() if count}
    # `keep_best` raises for budgets that are too large or, below, too small.
    if not caps or total > sum(caps.values()):
        return {tuple(alive): total}
    floor = 1 if total >= len(caps) else 0
    counts = _apportion(total, shares, floor, caps)
    return {(path,): count for path, count in counts.items()}


def _apportion(
    total: int, shares: Mapping[str, int], floor: int, caps: Mapping[str, int]
) -> dict[str, int]:
    """Returns counts that add up to `total`, each within [floor, cap].

    Counts are `scale * share`, clipped, for the scale that yields the total, in
    exact arithmetic. The largest remainders are then rounded up (Hamilton's
    method); among equal remainders, the first by path.
    """

    def ideal(scale: Fraction) -> dict[str, Fraction]:
        return {
            path: min(max(scale * shares[path], Fraction(floor)), Fraction(cap))
            for path, cap in caps.items()
        }

    def filled(scale: Fraction) -> Fraction:
        return sum(ideal(scale).values(), Fraction(0))

    # `filled` is linear between the scales at which a kernel leaves its floor
    # or reaches its cap.
    bends = sorted(
        {Fraction(b, shares[p]) for p in caps for b in (floor, caps[p])}
    )
    scale = bends[bisect.bisect_right(bends, Fraction(total), key=filled) - 1]
    slope = sum(
        shares[path]
        for path, cap in caps.items()
        if floor <= scale * shares[path] < cap
    )
    if slope:
        scale += (total - filled(scale)) / slope
    exact = ideal(scale)
    counts = {path: int(count) for path, count in exact.items()}
    by_remainder = sorted(caps, key=lambda path: counts[path] - exact[path])
    for path in by_remainder[: total - sum(counts.values())]:
        counts[path] += 1
    return counts
