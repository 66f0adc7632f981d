"""An executor that trains in this process."""

from collections.abc import Iterator, Mapping

from tf_lottery.runs.executors.base import OnProgress
from tf_lottery.training import Job, Outcome, Trainer, plan


class InProcessExecutor:
    """Trains in this process: on a GPU stacked, on a CPU one after another.

    Stacked, 128 LeNets cost an H100 a tenth of what they cost in turn; on a
    CPU that is no faster, and a compiled program for each number of networks
    slower. With a strategy each of a CPU's devices trains one.

    Args:
        trainer: The trainer.
        stack: How many networks train at the same time at most, >= 1. None:
            any number on a GPU, one on a CPU.
    """

    def __init__(self, trainer: Trainer, stack: int | None = None) -> None:
        self._trainer = trainer
        self._stack = stack or plan.max_parallel_jobs(trainer)
        self._submitted: list[Job] = []
        self._outcomes: Iterator[tuple[Job, Outcome]] = iter(())
        self._running = 0

    def free_slots(self, waiting: int) -> int:
        """Returns how many of the `waiting` jobs can be submitted now.

        Args:
            waiting: How many jobs the caller has, >= 1.
        """
        if self._running:
            return 0
        if self._stack is None:
            return waiting
        return min(waiting, self._stack - len(self._submitted))

    def submit(self, job: Job) -> None:
        """Adds a job to those that the next `wait` trains.

        Args:
            job: The job. There must be a free slot.
        """
        self._submitted.append(job)

    def wait(self, on_progress: OnProgress) -> list[tuple[Job, Outcome]]:
        """Trains the submitted jobs until one of them ends.

        Args:
            on_progress: Called whenever a job has been evaluated or saved.

        Returns:
            The job that ended, with its outcome.
        """
        if not self._running:
            jobs, self._submitted = self._submitted, []
            self._running = len(jobs)
            self._outcomes = self._train(jobs, on_progress)
        ended = next(self._outcomes)
        self._running -= 1
        return [ended]

    def _train(
        self, jobs: list[Job], on_progress: OnProgress
    ) -> Iterator[tuple[Job, Outcome]]:
        def progress(i: int, step: int, metrics: Mapping[str, float]) -> None:
            on_progress(jobs[i], step, metrics)

        for i, outcome in self._trainer.outcomes(jobs, progress):
            yield jobs[i], outcome
