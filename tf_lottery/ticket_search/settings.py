"""Settings of a search: what is pruned, how far, and how often."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tf_lottery import controls, masking, pruning
from tf_lottery.controls import Control
from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.lottery import search
from tf_lottery.masking.coverage import Patterns
from tf_lottery.pruning import allocation as allocations
from tf_lottery.pruning import schedule as schedules
from tf_lottery.pruning.rates import rates_by_path
from tf_lottery.runs import provenance

LEVELS = 15
"""Pruning rounds if no setting says where the search ends."""


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """The settings of a search, checked as far as they need no model.

    The fields are the arguments of `TicketSearch`, which documents them.

    Raises:
        UserError: A setting is out of range, or a name is unknown.
    """

    levels: int | None = None
    rate: float = 0.2
    rates: Mapping[str, float] | None = None
    criterion: str | pruning.Criterion = "magnitude"
    allocation: str | allocations.Allocation = "layerwise"
    schedule: str | schedules.Schedule = "geometric"
    rewind: str | Duration = "0it"
    rewind_mode: str = "weights"
    seed: int = 0
    controls: Sequence[str] = ()
    initial_weights: str | pathlib.Path | None = None
    include: Patterns = None
    exclude: Patterns = None
    density: float | None = None
    max_drop: float | None = None
    replicates: int = 1

    def __post_init__(self) -> None:
        self._require_one_target()
        if not isinstance(self.seed, int) or self.seed < 0:
            raise UserError(
                f"`seed` must be a whole number of 0 or more; got "
                f"{self.seed!r}."
            )
        if not isinstance(self.replicates, int) or self.replicates < 1:
            raise UserError(
                "`replicates` must be a whole number of 1 or more; got "
                f"{self.replicates!r}."
            )
        if self.max_drop is not None and self.replicates > 1:
            raise UserError(
                "`max_drop` ends a search by the networks of one replicate; "
                f"got replicates={self.replicates}. Leave out one of them, or "
                "give `levels` or `density`."
            )
        variants, _ = self.variants, self.rewind_to  # unknown names raise
        if self.rewind_mode != "weights":
            controls.require_theta_k(
                variants,
                f"rewind_mode={self.rewind_mode!r} leaves the trained ones",
            )

    def _require_one_target(self) -> None:
        targets = {
            "levels": self.levels,
            "density": self.density,
            "max_drop": self.max_drop,
        }
        names = [name for name, value in targets.items() if value is not None]
        if len(names) > 1:
            raise UserError(
                f"Give one of {', '.join(names)}: each says where the search "
                "ends."
            )
        levels, density = self.levels, self.density
        if levels is not None and (not isinstance(levels, int) or levels < 0):
            raise UserError(
                f"`levels` must be a whole number of 0 or more; got {levels!r}."
            )
        if density is not None and not 0 < density < 1:
            raise UserError(f"`density` must be in (0, 1); got {density!r}.")

    @property
    def variants(self) -> dict[str, Control]:
        """The controls of each ticket, by the variant's name."""
        return controls.variants(self.controls)

    @property
    def rewind_to(self) -> Duration | None:
        """The point that tickets restart from; None for `"auto"`."""
        return None if self.rewind == "auto" else Duration(self.rewind)

    def build_pruning(
        self, kernels: Mapping[str, masking.Kernel], masks: Masks
    ) -> search.Pruning:
        """Returns how a model is pruned, with its number of levels.

        Args:
            kernels: The kernels to prune, by path.
            masks: Masks of these kernels at level 0.

        Raises:
            UserError: A name is unknown, a rate is out of range or matches no
                kernel, or no level reaches `density`.
        """
        how = search.Pruning(
            LEVELS if self.levels is None else self.levels,
            rates_by_path(kernels, self.rate, self.rates),
            pruning.find_criterion(self.criterion, self.seed),
            allocations.get(self.allocation),
            schedules.get(self.schedule),
            self.rewind_mode,
        )
        if self.density is not None:
            return search.until_density(masks, how, self.density)
        if self.max_drop is not None:
            return search.with_max_levels(masks, how)
        return how

    def fingerprint(self, how: search.Pruning) -> dict[str, Any]:
        """Returns the settings that determine the results, as JSON holds them.

        How many levels, replicates and controls there are is left out: a run
        may grow by these.

        Args:
            how: The pruning that `build_pruning` returned for the model.
        """
        fingerprint = {
            "rates": dict(how.rates),
            "criterion": provenance.to_json(how.criterion),
            "allocation": provenance.to_json(how.allocation),
            "schedule": provenance.to_json(how.schedule),
            "rewind": str(self.rewind_to or "auto"),
            "initial_weights": None
            if self.initial_weights is None
            else str(self.initial_weights),
            "seed": self.seed,
        }
        if self.rewind_mode != "weights":
            fingerprint["rewind_mode"] = self.rewind_mode
        return fingerprint
