"""The tasks of a run, from unchecked to trained."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs.replicate_search import TrainingTask
from tf_lottery.training import Job, Outcome

OnTaskEnd = Callable[[TrainingTask, Outcome], list[TrainingTask]]


class RunningTask(NamedTuple):
    """A task in training, and its ticket."""

    task: TrainingTask
    ticket: Ticket


@dataclasses.dataclass
class TaskQueue:
    """The tasks of a run that are not trained yet.

    Attributes:
        on_task_end: Returns the tasks that can start after a task has ended.
        unchecked: Tasks not yet looked up in the run directory.
        ready: Tasks ready to start, tickets before controls.
        running: Tasks in training, by job.
    """

    on_task_end: OnTaskEnd
    unchecked: list[TrainingTask]
    ready: list[TrainingTask] = dataclasses.field(default_factory=list)
    running: dict[Job, RunningTask] = dataclasses.field(default_factory=dict)

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
        return not (self.unchecked or self.ready or self.running)
