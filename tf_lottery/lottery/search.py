"""This module knows iterative magnitude pruning with rewinding.

Frankle & Carbin 2019 (arXiv:1803.03635), Sec. 1 and App. B, Strategy 1:

1. Initialise a network f(x; θ0).
2. Train it for j steps, to θj.
3. Prune p % of θj by magnitude, giving a mask m.
4. Reset what survives to θ0: the ticket f(x; m ⊙ θ0).
5. Train that, and prune on, level by level.

With θk of an early step k in place of θ0 this is rewinding (Frankle et al.
2020, arXiv:1912.05671, Alg. 2).
"""

import dataclasses
from collections.abc import Callable, Generator, Iterator, Mapping

from tf_lottery import pruning
from tf_lottery.core import registry
from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.pruning import allocation as allocations
from tf_lottery.pruning import schedule as schedules
from tf_lottery.training import Diverged, Outcome, State, TrainingResult


def _is_random(path: str) -> bool:
    """Returns whether it is where a layer's random stream stands."""
    return path.endswith("seed_generator_state")


REWIND_MODES: dict[str, Callable[[State, TrainingResult], State]] = {
    "weights": lambda theta_k, run: theta_k,
    "learning_rate": lambda theta_k, run: dataclasses.replace(
        theta_k,
        weights={
            path: theta_k.weights[path] if _is_random(path) else value
            for path, value in run.trained.items()
        },
    ),
    "nothing": lambda theta_k, run: State(theta_k.step, run.trained, run.slots),
}
"""By name, from θk and the run that was pruned to where a ticket restarts."""


@dataclasses.dataclass(frozen=True)
class Pruning:
    """How the search prunes.

    Attributes:
        levels: Pruning rounds, >= 0; level 0 is the dense network.
        rates: Kernel path to the fraction of its survivors that goes each
            round, in [0, 1). Kernels of one rate form one group; at rate 0
            they stay whole.
        criterion: Scores the weights; a name or a callable. `"random"` draws
            with seed 0, `pruning.Random(seed)` with another.
        allocation: Shares a group's budget among its kernels.
        schedule: How much is left at each level, and which level scores.
        rewind_mode: `"weights"`: a ticket restarts from θk, which is weight
            rewinding. `"learning_rate"`: it keeps its trained weights, and all
            else restarts from step k: learning-rate rewinding (Renda et al.
            2020, arXiv:2003.02389); with k = 0, the continued training of
            Frankle & Carbin 2019, App. B, Strategy 2. `"nothing"`: the
            optimizer goes on too, its schedule from where it ended, for as
            many steps: fine-tuning, as Renda et al. compare it.
    """

    levels: int
    rates: Mapping[str, float]
    criterion: str | pruning.Criterion = "magnitude"
    allocation: str | allocations.Allocation = "layerwise"
    schedule: str | schedules.Schedule = "geometric"
    rewind_mode: str = "weights"

    def __post_init__(self) -> None:
        registry.get(REWIND_MODES, self.rewind_mode, "value of `rewind_mode`")


def find_tickets(
    dense: Ticket, how: Pruning
) -> Generator[Ticket, Outcome, None]:
    """Yields the ticket of each level, and is sent the run that trained it.

    The one place that holds the algorithm. It trains nothing itself: whoever
    drives it trains each ticket from `ticket.start` under `ticket.masks` and
    sends the record back, with the state at step k captured in that of level
    0. So one search, many at once, and one resumed are the same search.

    Whoever drives it sends `Diverged` of a ticket whose loss became nan. Such
    a ticket has no scores: the search ends there, unless the schedule scores
    the dense network alone.

    Args:
        dense: The ticket of level 0: all weights, and the initial state θ0.
        how: How to prune.

    Yields:
        Level 0 to level `how.levels`.

    Raises:
        ValueError: A kernel would lose its last weight.
    """
    criterion = pruning.find_criterion(how.criterion)
    schedule = schedules.get(how.schedule)
    _require_survivors(dense, how)
    run: Outcome = yield dense
    if isinstance(run, Diverged):
        return
    dense_run = run
    theta_k = run.captured[0] if run.captured else dense.origin
    masks = dense.masks
    for level in range(1, how.levels + 1):
        if schedule.from_dense:
            scored, within = dense_run, dense.masks
        elif isinstance(run, Diverged):
            return
        else:
            scored, within = run, masks
        scores = criterion(
            {path: scored.trained[path] for path in masks},
            {path: theta_k.weights[path] for path in masks},
        )
        kept = budgets(dense, how, level, within)
        masks = pruning.keep_best(scores, within, kept)
        origin = REWIND_MODES[how.rewind_mode](theta_k, scored)
        run = yield dataclasses.replace(
            dense,
            level=level,
            masks=masks,
            origin=origin,
            dense_trained=dense_run.trained,
        )


def budgets(
    dense: Ticket, how: Pruning, level: int, within: Masks | None = None
) -> dict[tuple[str, ...], int]:
    """Returns how many weights each group of kernels keeps at a level.

    Args:
        dense: The ticket of level 0.
        how: How to prune.
        level: The level, >= 0.
        within: What survives so far. None: all of the dense ticket.
    """
    survivors = dense.masks if within is None else within
    return _budgets(dense.masks, how, level, survivors)


def _budgets(
    dense: Masks, how: Pruning, level: int, survivors: Masks
) -> dict[tuple[str, ...], int]:
    schedule = schedules.get(how.schedule)
    share = allocations.get(how.allocation)
    kept: dict[tuple[str, ...], int] = {}
    for rate in sorted(set(how.rates.values()) - {0.0}):
        sizes = {p: n for p, n in dense.counts.items() if how.rates[p] == rate}

        def keep(size: int, rate: float = rate) -> int:
            return schedule.kept(size, rate, level)

        kept.update(share(sizes, keep, survivors))
    return kept


def density_at(masks: Masks, how: Pruning, level: int) -> float | None:
    """Returns the density of a level; None if a group would be empty.

    Args:
        masks: Those of level 0.
        how: How to prune.
        level: The level, >= 0.
    """
    groups = _budgets(masks, how, level, masks)
    if any(kept < 1 for kept in groups.values()):
        return None
    pruned = {path for group in groups for path in group}
    whole = sum(n for p, n in masks.counts.items() if p not in pruned)
    return (whole + sum(groups.values())) / masks.size


def down_to(masks: Masks, how: Pruning, density: float) -> Pruning:
    """Returns a pruning of as many levels as reach a density.

    Args:
        masks: Those of level 0.
        how: How to prune; its levels are not looked at.
        density: The last level is the first with at most this density.

    Raises:
        ValueError: No level has.
    """
    for level in range(_MOST):
        found = density_at(masks, how, level)
        if found is None:
            break
        if found <= density:
            return dataclasses.replace(how, levels=level)
    last = density_at(masks, how, level - 1)
    raise UserError(
        f"`density` {density:g} is out of reach at these rates: level "
        f"{level - 1} keeps {last:.3g} of the weights, and later ones no more "
        "can go. Give a larger density, or other `rates`."
    )


def as_far_as_it_goes(masks: Masks, how: Pruning) -> Pruning:
    """Returns a pruning of all levels that leave a weight in each group.

    Args:
        masks: Those of level 0.
        how: How to prune; its levels are not looked at.
    """
    level, last = 0, None
    while level + 1 < _MOST:
        found = density_at(masks, how, level + 1)
        if found is None or found == last:
            break
        level, last = level + 1, found
    return dataclasses.replace(how, levels=level)


_MOST = 100  # levels


def _require_survivors(dense: Ticket, how: Pruning) -> None:
    """Raises, before anything trains, if the last level would be empty."""
    for group, keep in budgets(dense, how, how.levels).items():
        if keep < 1:
            raise UserError(
                f"No weight of {', '.join(group)} would be left at level "
                f"{how.levels}. Take fewer levels, or a lower rate."
            )


def train_sequentially(
    tickets: Generator[Ticket, Outcome, None],
    train: Callable[[Ticket], TrainingResult],
) -> Iterator[tuple[Ticket, TrainingResult]]:
    """Yields each ticket of a search with the run that trained it.

    Args:
        tickets: As `find_tickets` returns.
        train: Trains a ticket.
    """
    try:
        ticket = next(tickets)
        while True:
            run = train(ticket)
            yield ticket, run
            ticket = tickets.send(run)
    except StopIteration:
        return
