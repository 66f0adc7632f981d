"""Shards: the replicates of an experiment that one command trains."""

import dataclasses
import re
from collections.abc import Mapping

from tf_lottery.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of several commands that share an experiment or a sweep.

    Replicates are dealt in turn: the first to shard 0, the second to shard 1,
    …; those of a sweep are counted through all its runs. So shards need not
    communicate.

    Attributes:
        index: Number of the shard, in [0, count).
        count: Number of shards, >= 1. A single one trains everything.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Returns the shard that is written `"i/n"`.

        Args:
            text: The shard as text.

        Raises:
            UserError: The text has another form.

        Example:
            >>> Shard.parse("1/4").own(replicates=6)
            range(1, 6, 4)
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise UserError(
                "A shard is written i/n, of n shards number i from 0 to n-1, "
                f"such as 0/4; got {text!r}."
            )
        return cls(int(match[1]), int(match[2]))

    def own(self, replicates: int) -> range:
        """Returns the replicates of an experiment that this shard trains.

        Args:
            replicates: Number of replicates of the experiment, >= 1.
        """
        return range(self.index, replicates, self.count)

    def text(self, replicates: int) -> str:
        """Returns a sentence that says which replicates this shard trains.

        Args:
            replicates: Number of replicates of the experiment, >= 1.
        """
        own = ", ".join(map(str, self.own(replicates))) or "none"
        return (
            f"Shard {self.index}/{self.count}: replicate {own} of "
            f"{replicates}; others are left to the other shards."
        )

    def within(self, replicates: Mapping[str, int]) -> "dict[str, Shard]":
        """Returns the shard of each run of a sweep.

        Args:
            replicates: Label of each run to its number of replicates, in order.
        """
        shards, before = {}, 0
        for label, count in replicates.items():
            shards[label] = Shard(
                (self.index - before) % self.count, self.count
            )
            before += count
        return shards
