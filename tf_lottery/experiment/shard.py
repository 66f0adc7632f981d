"""This module knows which replicates of an experiment one command does."""

import dataclasses
import re
from collections.abc import Mapping

from tf_lottery.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of several commands that share an experiment or a sweep.

    Replicates go round: the first to shard 0, the second to shard 1, …; those
    of a sweep are counted through all its runs. Which shard does what depends
    on nothing but this, so shards need not know of each other.

    Attributes:
        index: Which one, in [0, count).
        count: How many there are. One does everything.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Returns the shard that is written `"i/n"`.

        Raises:
            ValueError: It is no such thing.

        Example:
            >>> Shard.parse("1/4").own(replicates=6)
            range(1, 6, 4)
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or int(found[1]) >= int(found[2]):
            raise UserError(
                "A shard is written i/n, of n shards number i from 0 to n-1, "
                f"such as 0/4; got {text!r}."
            )
        return cls(int(found[1]), int(found[2]))

    def own(self, replicates: int) -> range:
        """Returns which replicates of an experiment are this shard's."""
        return range(self.index, replicates, self.count)

    def text(self, replicates: int) -> str:
        """Returns what this shard does, and what it leaves to others."""
        own = ", ".join(map(str, self.own(replicates))) or "none"
        return (
            f"Shard {self.index}/{self.count}: replicate {own} of "
            f"{replicates}; others are left to the other shards."
        )

    def within(self, replicates: Mapping[str, int]) -> "dict[str, Shard]":
        """Returns the shard of each run of a sweep.

        Args:
            replicates: Label of each run to how many it has, in order.
        """
        shards, before = {}, 0
        for label, count in replicates.items():
            shards[label] = Shard(
                (self.index - before) % self.count, self.count
            )
            before += count
        return shards
