"""The search of one replicate, as tasks that become ready one by one."""

import dataclasses
from collections.abc import Callable, Mapping

from tf_lottery import controls
from tf_lottery.controls import Control
from tf_lottery.lottery.search import Pruning, find_tickets
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs.network_graph import NetworkGraph, NetworkName
from tf_lottery.training import Diverged, Outcome, State


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingTask:
    """A network to train.

    Attributes:
        replicate: The replicate it belongs to, >= 0.
        base: The ticket of its level.
        control: The control that turns `base` into the ticket to train. None:
            `base` itself is trained.
        seed: Seed of its training, and of the control, >= 0.
        keeps_slots: Whether the optimizer's variables at the end are needed.
        dependents: The networks that cannot be trained if this one diverges.
    """

    replicate: int
    base: Ticket
    control: Control | None
    seed: int
    keeps_slots: bool = False
    dependents: frozenset[NetworkName] = frozenset()

    def ticket(self) -> Ticket:
        """Returns the ticket to train.

        A control is computed at each call: to store those of all waiting
        tasks would take much memory.
        """
        if self.control is None:
            return self.base
        return self.control(self.base, self.seed)

    @property
    def is_dense(self) -> bool:
        """Whether it is the dense network, whose state at step k is θk."""
        return self.control is None and self.base.level == 0


class ReplicateSearch:
    """The search of one replicate: its tickets, level by level, and controls.

    Args:
        replicate: The replicate, >= 0.
        dense: The ticket of level 0.
        pruning: How tickets are pruned.
        variants: The controls of each ticket, by variant name.
        seed: Seed of training and of the controls, >= 0.
        on_level_end: Called with the ticket of each level once it is trained;
            returns whether to go on to the next level.

    Attributes:
        replicate: The replicate.
        dense: The task that trains the dense network. All others follow it.
    """

    def __init__(
        self,
        replicate: int,
        dense: Ticket,
        pruning: Pruning,
        variants: Mapping[str, Control],
        seed: int,
        on_level_end: Callable[[Ticket], bool] | None = None,
    ) -> None:
        self.replicate = replicate
        self._pruning, self._seed = pruning, seed
        self._on_level_end = on_level_end
        self._ticket_controls = tuple(variants.values())
        self._dense_controls = tuple(controls.of_dense(variants).values())
        self._graph = NetworkGraph(pruning.levels, variants, pruning.schedule)
        self._search = find_tickets(dense, pruning)
        self.dense = self._task(next(self._search))

    def on_task_end(
        self, task: TrainingTask, outcome: Outcome
    ) -> list[TrainingTask]:
        """Returns the tasks that can start now that a task has ended.

        After a ticket these are the ticket of the next level and the ticket's
        controls. After a ticket that diverged there are no controls, and the
        next level follows only if it does not depend on that ticket.

        Args:
            task: A task of this search.
            outcome: The outcome of its training.
        """
        if task.control is not None:
            return []
        if isinstance(outcome, Diverged):
            return self._next_level(outcome)
        goes_on = self._on_level_end is None or self._on_level_end(
            dataclasses.replace(
                task.base,
                metrics=outcome.metrics,
                trained=outcome.trained,
                best=outcome.best,
            )
        )
        if task.is_dense:
            base = fork_at(task.base, outcome.captured[0])
            tasks = [self._task(base, c) for c in self._dense_controls]
        else:
            tasks = [self._task(task.base, c) for c in self._ticket_controls]
        return [*self._next_level(outcome), *tasks] if goes_on else tasks

    def _next_level(self, outcome: Outcome) -> list[TrainingTask]:
        """Returns the ticket of the next level, if there is one."""
        try:
            return [self._task(self._search.send(outcome))]
        except StopIteration:
            return []

    def _task(
        self, ticket: Ticket, control: Control | None = None
    ) -> TrainingTask:
        task = TrainingTask(self.replicate, ticket, control, self._seed)
        if control is not None:
            return task
        return dataclasses.replace(
            task,
            keeps_slots=self._pruning.rewind_mode == "nothing",
            dependents=self._graph.dependents(ticket.level),
        )


def fork_at(dense: Ticket, theta_k: State) -> Ticket:
    """Returns the dense network at step k, where copies of it start.

    Args:
        dense: The ticket of level 0.
        theta_k: The state of its training at step k.
    """
    return dataclasses.replace(dense, origin=theta_k)
