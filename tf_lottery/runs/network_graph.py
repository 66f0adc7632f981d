"""The networks of a search, and which of them depend on which."""

import dataclasses
from collections.abc import Collection, Mapping

from tf_lottery import controls
from tf_lottery.controls import Control
from tf_lottery.pruning import schedule as schedules

NetworkName = tuple[int, str]
"""Level and variant of a network: `(3, "ticket")`."""


@dataclasses.dataclass(frozen=True)
class NetworkGraph:
    """The networks that a search trains if none of them diverges.

    Attributes:
        levels: Pruning rounds, >= 0.
        variants: The controls of each ticket, by variant name.
        schedule: The pruning schedule, or its name.
    """

    levels: int
    variants: Mapping[str, Control]
    schedule: str | schedules.Schedule

    @property
    def networks(self) -> frozenset[NetworkName]:
        """All networks of the search."""
        return self._above(-1)

    def dependents(
        self, level: int, variant: str = "ticket"
    ) -> frozenset[NetworkName]:
        """Returns the networks that cannot be trained if one diverges.

        Args:
            level: The level of the network that diverges, >= 0.
            variant: Its variant. Nothing depends on a control.
        """
        if variant != "ticket":
            return frozenset()
        same_level = frozenset((level, name) for name in self._controls(level))
        if level and schedules.get(self.schedule).from_dense:
            return same_level
        return same_level | self._above(level)

    def _above(self, level: int) -> frozenset[NetworkName]:
        return frozenset(
            (higher, name)
            for higher in range(level + 1, self.levels + 1)
            for name in ("ticket", *self._controls(higher))
        )

    def _controls(self, level: int) -> Collection[str]:
        return self.variants if level else controls.of_dense(self.variants)


def describe(level: int, dependents: Collection[NetworkName]) -> str:
    """Returns the networks that depend on a ticket, as text for messages.

    Args:
        level: The level of the ticket, >= 0.
        dependents: The networks that depend on it.

    Example:
        >>> describe(2, [(2, "reinit"), (3, "ticket"), (4, "ticket")])
        'levels 3 to 4 and the controls of level 2'
    """
    levels = {network_level for network_level, _ in dependents}
    higher = sorted(levels - {level})
    parts = []
    if len(higher) == 1:
        parts.append(f"level {higher[0]}")
    elif higher:
        parts.append(f"levels {higher[0]} to {higher[-1]}")
    if level in levels:
        parts.append(f"the controls of level {level}")
    return " and ".join(parts)
