"""Pruning rates of kernels."""

from collections.abc import Mapping

from tf_lottery.core.errors import UserError
from tf_lottery.masking import Kernel
from tf_lottery.masking.coverage import matching


def rates_by_path(
    kernels: Mapping[str, Kernel],
    rate: float,
    rates: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Returns the fraction of survivors that each kernel loses per round.

    Args:
        kernels: The kernels to prune, by path.
        rate: The rate of all kernels that `rates` does not name, in [0, 1).
        rates: Rate by role (`"conv"`, `"dense"`, `"output"`) or by glob
            pattern of kernel paths. A later entry overrides an earlier one.

    Raises:
        UserError: A rate is out of range, or a key is no role and matches no
            kernel.
    """
    by_path = dict.fromkeys(kernels, _checked("rate", rate))
    for key, value in (rates or {}).items():
        _checked(f"rates[{key!r}]", value)
        paths = [path for path, k in kernels.items() if k.role == key]
        for path in paths or matching(key, list(kernels)):
            by_path[path] = float(value)
    return by_path


def _checked(name: str, rate: float) -> float:
    if not 0 <= rate < 1:
        raise UserError(
            f"`{name}` must be in [0, 1); got {rate}. It is the fraction of "
            "the survivors that each round prunes, such as 0.2."
        )
    return float(rate)
