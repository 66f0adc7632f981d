"""This module knows what a crew promises."""

from collections.abc import Callable, Mapping
from typing import Protocol

from tf_lottery.training import Job, Outcome

Progress = Callable[[Job, int, Mapping[str, float]], None]


class Executor(Protocol):
    """Whoever trains networks."""

    def free_slots(self, waiting: int) -> int:
        """Returns how many of so many waiting jobs can be taken now."""

    def submit(self, job: Job) -> None:
        """Starts on a job, for which there is room."""

    def wait(self, progress: Progress) -> list[tuple[Job, Outcome]]:
        """Waits until jobs are done, and returns what became of them.

        Args:
            progress: Called with a job, the step, and the latest figures.
        """
