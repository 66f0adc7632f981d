"""Iterative magnitude pruning with rewinding.

Frankle & Carbin 2019 (arXiv:1803.03635), Sec. 1 and App. B, Strategy 1:

1. Initialize a network f(x; θ0).
2. Train it for j steps, to θj.
3. Prune p % of θj by magnitude, giving a mask m.
4. Reset the surviving weights to θ0: the ticket f(x; m ⊙ θ0).
5. Repeat from step 2 with the ticket, level by level.

With θk of an early step k in place of θ0 this is rewinding (Frankle et al.
2020, arXiv:1912.05671, Alg. 2).

`find_tickets` does steps 3 and 4; `train_sequentially` drives it.
"""

import contextlib
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


def _with_trained_weights(theta_k: State, result: TrainingResult) -> State:
    """Returns θk with trained weights; random streams stay at step k."""
    weights = {
        path: theta_k.weights[path]
        if path.endswith("seed_generator_state")
        else value
        for path, value in result.trained.items()
    }
    return dataclasses.replace(theta_k, weights=weights)


REWIND_MODES: dict[str, Callable[[State, TrainingResult], State]] = {
    "weights": lambda theta_k, result: theta_k,
    "learning_rate": _with_trained_weights,
    "nothing": lambda theta_k, result: State(
        theta_k.step, result.trained, result.slots
    ),
}
"""Name to a function of θk and the result that was pruned, which returns the
state that a ticket restarts from, before masking."""


@dataclasses.dataclass(frozen=True)
class Pruning:
    """Settings of the pruning in a search.

    Attributes:
        levels: Pruning rounds, >= 0; level 0 is the dense network.
        rates: Kernel path to the fraction of its surviving weights that is
            pruned each round, in [0, 1). Kernels with equal rates form one
            group; kernels at rate 0 are not pruned.
        criterion: Scores the weights; a name or a callable. `"random"` draws
            with seed 0, `pruning.Random(seed)` with another.
        allocation: Divides a group's budget among its kernels; a name or a
            callable.
        schedule: The number of weights kept at each level, and the level
            whose training is scored; a name or a `Schedule`.
        rewind_mode: `"weights"`: a ticket restarts from θk, which is weight
            rewinding. `"learning_rate"`: it keeps its trained weights, and
            the rest restarts from step k: learning-rate rewinding (Renda et
            al. 2020, arXiv:2003.02389); with k = 0, the continued training of
            Frankle & Carbin 2019, App. B, Strategy 2. `"nothing"`: the
            optimizer continues too, with its schedule, for as many steps:
            fine-tuning, as Renda et al. compare it.
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
    dense: Ticket, settings: Pruning
) -> Generator[Ticket, Outcome, None]:
    """Yields the ticket of each level, and is sent the result of training it.

    This function trains nothing: the caller trains each ticket from
    `ticket.start` under `ticket.masks` and sends the result back. The result
    of level 0 must hold the state at step k in `captured`, unless k = 0.
    Sequential, parallel and resumed searches all use this generator.

    The caller sends `Diverged` for a ticket whose loss became nan. Such a
    ticket has no scores, so the search ends there, unless the schedule scores
    only the dense network.

    Args:
        dense: The ticket of level 0: masks of ones, or those that the model
            has already, and the initial state θ0.
        settings: The settings of the pruning.

    Yields:
        Level 0 to level `settings.levels`.

    Raises:
        UserError: A group of kernels would lose its last weight.
    """
    criterion = pruning.find_criterion(settings.criterion)
    schedule = schedules.get(settings.schedule)
    rewind = REWIND_MODES[settings.rewind_mode]
    _require_survivors(dense.masks, settings)

    result: Outcome = yield dense  # Train f(x; θ0).
    if isinstance(result, Diverged):
        return
    dense_result, masks = result, dense.masks
    theta_k = result.captured[0] if result.captured else dense.origin
    for level in range(1, settings.levels + 1):
        if schedule.from_dense:
            result, masks = dense_result, dense.masks
        if isinstance(result, Diverged):
            return
        # Prune the trained weights. A variable would keep the scores in memory
        # while the ticket trains.
        masks = pruning.keep_best(
            criterion(
                {path: result.trained[path] for path in masks},
                {path: theta_k.weights[path] for path in masks},
            ),
            masks,
            budgets(dense.masks, settings, level, masks),
        )
        # Rewind the surviving ones, and train the ticket f(x; m ⊙ θk).
        result = yield dataclasses.replace(
            dense,
            level=level,
            masks=masks,
            origin=rewind(theta_k, result),
            dense_trained=dense_result.trained,
        )


def train_sequentially(
    tickets: Generator[Ticket, Outcome, None],
    train: Callable[[Ticket], Outcome],
) -> Iterator[tuple[Ticket, Outcome]]:
    """Yields each ticket of a search with the result of its training.

    Args:
        tickets: The generator that `find_tickets` returned.
        train: Trains a ticket from `ticket.start` under `ticket.masks` and
            returns the result.
    """
    with contextlib.suppress(StopIteration):
        ticket = next(tickets)
        while True:
            result = train(ticket)
            yield ticket, result
            ticket = tickets.send(result)  # Prune and rewind.


def budgets(
    dense: Masks, settings: Pruning, level: int, survivors: Masks | None = None
) -> dict[tuple[str, ...], int]:
    """Returns the number of weights that each group of kernels keeps.

    Args:
        dense: The masks of level 0.
        settings: The settings of the pruning.
        level: The level, >= 0.
        survivors: The masks so far, at most `dense`; None for `dense`.
    """
    schedule = schedules.get(settings.schedule)
    allocate = allocations.get(settings.allocation)
    rates = settings.rates
    kept: dict[tuple[str, ...], int] = {}
    for rate in sorted(set(rates.values()) - {0.0}):
        sizes = {p: n for p, n in dense.counts.items() if rates[p] == rate}

        def keep(size: int, rate: float = rate) -> int:
            return schedule.kept(size, rate, level)

        kept.update(allocate(sizes, keep, survivors or dense))
    return kept


def density_at(masks: Masks, settings: Pruning, level: int) -> float | None:
    """Returns the density of a level; None if a group would be empty.

    Args:
        masks: The masks of level 0.
        settings: The settings of the pruning.
        level: The level, >= 0.
    """
    groups = budgets(masks, settings, level)
    if any(kept < 1 for kept in groups.values()):
        return None
    pruned = {path for group in groups for path in group}
    unpruned = sum(n for p, n in masks.counts.items() if p not in pruned)
    return (unpruned + sum(groups.values())) / masks.size


def until_density(masks: Masks, settings: Pruning, density: float) -> Pruning:
    """Returns the settings with as many levels as reach a density.

    Args:
        masks: The masks of level 0.
        settings: The settings of the pruning; `levels` is ignored.
        density: The last level is the first with at most this density.

    Raises:
        UserError: No level has so low a density.
    """
    last = 1.0
    for level in range(_MAX_LEVELS):
        reached = density_at(masks, settings, level)
        if reached is None:
            level -= 1
            break
        if reached <= density:
            return dataclasses.replace(settings, levels=level)
        last = reached
    raise UserError(
        f"`density` {density:g} is out of reach at these rates: level "
        f"{level} keeps {last:.3g} of the weights, and later levels "
        "cannot prune more. Give a larger density, or other `rates`."
    )


def with_max_levels(masks: Masks, settings: Pruning) -> Pruning:
    """Returns the settings with all levels that leave a weight in each group.

    Args:
        masks: The masks of level 0.
        settings: The settings of the pruning; `levels` is ignored.
    """
    level, last = 0, None
    while level + 1 < _MAX_LEVELS:
        density = density_at(masks, settings, level + 1)
        if density is None or density == last:
            break
        level, last = level + 1, density
    return dataclasses.replace(settings, levels=level)


_MAX_LEVELS = 100


def _require_survivors(dense: Masks, settings: Pruning) -> None:
    """Raises, before anything trains, if the last level would be empty."""
    for group, keep in budgets(dense, settings, settings.levels).items():
        if keep < 1:
            raise UserError(
                f"No weight of {', '.join(group)} would be left at level "
                f"{settings.levels}. Take fewer levels, or a lower rate."
            )
