"""Numbers of replicates at which a run is judged."""

import dataclasses
import re

from tf_lottery.analysis.estimate import ALPHA, FEWEST
from tf_lottery.core.errors import UserError

TWO_LOOKS = 0.0147
"""Error rate of each of two looks that together err in 2.5 % of runs.

Pocock's bound (1977, Biometrika 64:191). It is exact for normal data and a
first look at half of them. With t tests the first look needs at least `_SHARE`
of the replicates, and at least `_FIRST` replicates
(tests/analysis/test_error_rates.py)."""

_FIRST, _SHARE = 5, 5 / 8


@dataclasses.dataclass(frozen=True)
class Looks:
    """Numbers of replicates at which a run is judged.

    They are fixed before training. To look, train more and look again would
    name a losing ticket in up to 7 % of runs in place of 2.5 %.

    Attributes:
        first: Replicates at the first look, >= 1.
        last: Replicates at the last look; equal to `first` for a single look.
    """

    first: int = 1
    last: int = 1

    @classmethod
    def parse(cls, value: "int | str | Looks") -> "Looks":
        """Returns looks from one number (`5`, `"5"`) or two (`"5:8"`).

        Args:
            value: Number of replicates, >= 1, or `"A:B"` with 5 <= A < B and
                B at most 1.6 times A, which keeps the error rate.

        Raises:
            UserError: The value is neither.

        Example:
            >>> Looks.parse("5:8")
            Looks(first=5, last=8)
        """
        if isinstance(value, Looks):
            return value
        match = re.fullmatch(r"(\d+)(?::(\d+))?", str(value))
        if isinstance(value, bool) or not match or int(match[1]) < 1:
            raise UserError(
                "`replicates` must be a whole number of 1 or more, or two: "
                '"5:8" trains 5, and 8 if these do not decide; got '
                f"{value!r}."
            )
        first = int(match[1])
        looks = cls(first, int(match[2] or first))
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
        """Returns the number of replicates of the next or current look.

        Args:
            replicates: Number of replicates that have started.
        """
        return self.first if replicates <= self.first else self.last

    def require_continues(self, begun: "int | str | Looks", run: str) -> None:
        """Raises an error if a run was planned for other replicates.

        A run of fewer than three has no verdict, so it may grow.

        Args:
            begun: Planned replicates of the run.
            run: Address of the run directory.

        Raises:
            UserError: The run was planned for other replicates.
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
        if self.is_sequential:
            return f"{self.first}:{self.last}"
        return f"{self.last}"
