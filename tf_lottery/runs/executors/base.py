"""The interface of executors."""

from collections.abc import Callable, Mapping
from typing import Protocol

from tf_lottery.training import Job, Outcome

OnProgress = Callable[[Job, int, Mapping[str, float]], None]
"""Called with a job, its step, and the metrics of its latest evaluation."""


class Executor(Protocol):
    """Trains the networks of jobs, like an executor of `concurrent.futures`.

    It differs in two ways. It accepts only as many jobs as it has free slots,
    so that the caller decides late which network is trained next. And `wait`
    both trains and returns outcomes, because an executor may train in the
    process that calls it.
    """

    def free_slots(self, waiting: int) -> int:
        """Returns how many of the `waiting` jobs can be submitted now.

        Args:
            waiting: How many jobs the caller has, >= 1.
        """

    def submit(self, job: Job) -> None:
        """Schedules a job for training.

        Args:
            job: The job. There must be a free slot.
        """

    def wait(self, on_progress: OnProgress) -> list[tuple[Job, Outcome]]:
        """Waits for the first job to end, as `FIRST_COMPLETED` does.

        It may be called without a job, if there is no free slot.

        Args:
            on_progress: Called whenever a job has been evaluated or saved.

        Returns:
            The jobs that ended, with their outcomes; none if a slot has become
            free otherwise.
        """
