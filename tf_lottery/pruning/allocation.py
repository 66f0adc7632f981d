"""This module knows how a budget of weights is shared among kernels."""

from collections.abc import Callable, Mapping

from tf_lottery import lookup

Budgets = Mapping[tuple[str, ...], int]
"""Group of kernels to the number of weights that the group keeps."""

Allocation = Callable[[Mapping[str, int], Callable[[int], int]], Budgets]
"""From kernel sizes, and how many of n weights to keep, to budgets."""


def layerwise(
    sizes: Mapping[str, int], keep: Callable[[int], int]
) -> dict[tuple[str, ...], int]:
    """Returns the same density for every kernel (Frankle & Carbin, Sec. 2).

    Example:
        >>> layerwise({"a": 10, "b": 100}, lambda size: size // 2)
        {('a',): 5, ('b',): 50}
    """
    return {(path,): keep(size) for path, size in sizes.items()}


def global_(
    sizes: Mapping[str, int], keep: Callable[[int], int]
) -> dict[tuple[str, ...], int]:
    """Returns one budget for all kernels, which compete for it.

    Frankle & Carbin 2019, Sec. 4, prunes deep networks so: otherwise small
    layers become bottlenecks.

    Example:
        >>> global_({"a": 10, "b": 100}, lambda size: size // 2)
        {('a', 'b'): 55}
    """
    return {tuple(sizes): keep(sum(sizes.values()))}


ALLOCATIONS: dict[str, Allocation] = {
    "layerwise": layerwise,
    "global": global_,
}
"""Every allocation by name."""


def find(allocation: str | Allocation) -> Allocation:
    """Returns the allocation of that name, or the callable itself."""
    if callable(allocation):
        return allocation
    return lookup.find(ALLOCATIONS, allocation, "allocation")
