"""Replicates of a run, and when the verdict looks at them."""

import dataclasses
import re

from tf_lottery.analysis.estimate import ALPHA, FEWEST
from tf_lottery.core.errors import UserError

TWO_LOOKS = 0.0147
"""Error rate of each of two looks that err in 2.5 % of runs together.

Pocock's bound (1977, Biometrika 64:191). It is exact for normal data and a
first look at half of them; t tests need a first look at `_SHARE` of `_FIRST`
replicates or more (tests/analysis/test_error_rates.py)."""

_FIRST, _SHARE = 5, 5 / 8


@dataclasses.dataclass(frozen=True)
class Looks:
    """At how many replicates a run is judged.

    It is fixed before anything is trained: to look, train more and look again
    would name a losing ticket in up to 7 % of runs in place of 2.5 %.

    Attributes:
        first: Replicates at the first look, >= 1.
        last: Replicates at the last look; equal to `first` for a single look.
    """

    first: int = 1
    last: int = 1

    @classmethod
    def parse(cls, value: "int | str | Looks") -> "Looks":
        """Returns looks from a number (`5`, `"5"`) or two (`"5:8"`).

        Raises:
            ValueError: It is neither, or a verdict could not keep to its
                error rate.

        Example:
            >>> Looks.parse("5:8")
            Looks(first=5, last=8)
        """
        if isinstance(value, Looks):
            return value
        found = re.fullmatch(r"(\d+)(?::(\d+))?", str(value))
        if isinstance(value, bool) or not found or int(found[1]) < 1:
            raise UserError(
                "`replicates` must be a whole number of 1 or more, or two: "
                '"5:8" trains 5, and 8 if these do not decide; got '
                f"{value!r}."
            )
        first = int(found[1])
        looks = cls(first, int(found[2] or first))
        if looks.is_sequential and not (
            _FIRST <= first < looks.last <= first / _SHARE
        ):
            raise UserError(
                f'In `replicates="A:B"` A must be {_FIRST} or more, and B '
                f"above A and at most {1 / _SHARE} times A; got {value!r}."
            )
        return looks

    @property
    def is_sequential(self) -> bool:
        """Whether there is a second look if the first does not decide."""
        return self.last != self.first

    @property
    def alpha(self) -> float:
        """Error rate of each one-sided test at each look."""
        return TWO_LOOKS if self.is_sequential else ALPHA

    def at(self, replicates: int) -> int:
        """Returns how many replicates the look takes that is due.

        Args:
            replicates: How many have been begun.
        """
        return self.first if replicates <= self.first else self.last

    def require_continues(self, begun: "int | str | Looks", run: str) -> None:
        """Raises a ValueError if a run was planned for other replicates.

        Fewer than three have no verdict, so such a run may grow.

        Args:
            begun: What the run was planned for.
            run: Its address.
        """
        planned = Looks.parse(begun)
        if planned.last >= FEWEST and planned != self:
            raise UserError(
                f"{run!r} was begun with {planned} replicates, at which it is "
                f"judged; got {self}. To look and train more would name a "
                "losing ticket too often: give the same number, or begin "
                "another run directory with another seed."
            )

    def __str__(self) -> str:
        return (
            f"{self.first}:{self.last}"
            if self.is_sequential
            else (f"{self.last}")
        )
