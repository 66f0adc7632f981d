"""The tasks of a run, from unchecked to trained."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs.replicate_search import TrainingTask
from tf_lottery.training import Job, Outcome

OnTaskEnd = Callable[[TrainingTask, Outcome], list[TrainingTask]]


class RunningTask(NamedTuple):
    """A task that this process trains, its ticket, and its lease's name."""

    task: TrainingTask
    ticket: Ticket
    lease: str


@dataclasses.dataclass
class TaskQueue:
    """The tasks of a run that are not trained yet.

    Attributes:
        on_task_end: Returns the tasks that can start after a task has ended.
        unchecked: Tasks not yet looked up in the run directory.
        ready: Tasks ready to start, tickets before controls.
        running: Tasks that this process trains, by job.
        remote: Tasks that other processes train, by lease.
        has_announced_wait: Whether the user knows that this process waits for
            others.
    """

    on_task_end: OnTaskEnd
    unchecked: list[TrainingTask]
    ready: list[TrainingTask] = dataclasses.field(default_factory=list)
    running: dict[Job, RunningTask] = dataclasses.field(default_factory=dict)
    remote: dict[str, TrainingTask] = dataclasses.field(default_factory=dict)
    has_announced_wait: bool = False

    def end(self, task: TrainingTask, outcome: Outcome) -> None:
        """Adds the tasks that can start now that a task has ended.

        Args:
            task: The task.
            outcome: The outcome of its training.
        """
        self.unchecked += self.on_task_end(task, outcome)

    @property
    def is_empty(self) -> bool:
        """Whether no task is left."""
        return not (self._has_local_tasks or self.remote)

    @property
    def waits_for_others(self) -> bool:
        """Whether all tasks that are left are trained by other processes."""
        return bool(self.remote) and not self._has_local_tasks

    @property
    def _has_local_tasks(self) -> bool:
        return bool(self.unchecked or self.ready or self.running)
