"""The networks that a search trains, and what each of them waits for."""

import dataclasses
from collections.abc import Collection, Mapping

from tf_lottery import controls
from tf_lottery.controls import Control
from tf_lottery.pruning import schedule as schedules

Name = tuple[int, str]
"""Level and variant of a network: `(3, "ticket")`."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a search trains, if no network diverges.

    Attributes:
        levels: Pruning rounds, >= 0.
        variants: What is trained beside each ticket, by name.
        schedule: The schedule of pruning, or its name.
    """

    levels: int
    variants: Mapping[str, Control]
    schedule: str | schedules.Schedule

    @property
    def networks(self) -> frozenset[Name]:
        """All networks of the search."""
        return self._above(-1)

    def dependents(
        self, level: int, variant: str = "ticket"
    ) -> frozenset[Name]:
        """Returns the networks that are trained only if another one is.

        Args:
            level: The level of that other network.
            variant: Its variant. Nothing depends on a control.
        """
        if variant != "ticket":
            return frozenset()
        own = frozenset((level, name) for name in self._controls(level))
        scores_dense = schedules.get(self.schedule).from_dense
        return own if level and scores_dense else own | self._above(level)

    def _above(self, level: int) -> frozenset[Name]:
        return frozenset(
            (higher, name)
            for higher in range(level + 1, self.levels + 1)
            for name in ("ticket", *self._controls(higher))
        )

    def _controls(self, level: int) -> Collection[str]:
        return self.variants if level else controls.of_dense(self.variants)


def described(level: int, networks: Collection[Name]) -> str:
    """Returns, for a person to read, what depends on the ticket of a level.

    Args:
        level: The level.
        networks: The networks that depend on it.

    Example:
        >>> described(2, [(2, "reinit"), (3, "ticket"), (4, "ticket")])
        'levels 3 to 4 and the controls of level 2'
    """
    higher = sorted({at for at, _ in networks if at > level})
    parts = []
    if len(higher) == 1:
        parts.append(f"level {higher[0]}")
    elif higher:
        parts.append(f"levels {higher[0]} to {higher[-1]}")
    if any(at == level for at, _ in networks):
        parts.append(f"the controls of level {level}")
    return " and ".join(parts)
