"""This module knows a crew of one: this process."""

from collections.abc import Iterator, Mapping

from tf_lottery.runs.executors.base import Progress
from tf_lottery.training import Job, Outcome, Trainer, plan


class InProcessExecutor:
    """Trains in this process: on a GPU side by side, on a CPU in turn.

    Side by side, 128 LeNets cost an H100 a tenth of what they cost in turn;
    on a CPU that is no faster, and a compiled program for each number of
    networks slower. With a strategy each of a CPU's devices trains one.

    Args:
        trainer: What trains them.
        stack: How many train side by side at most. None: as said.
    """

    def __init__(self, trainer: Trainer, stack: int | None = None) -> None:
        self._trainer = trainer
        self._stack = stack or plan.max_parallel_jobs(trainer)
        self._taken: list[Job] = []
        self._training: Iterator[tuple[Job, Outcome]] = iter(())
        self._left = 0  # networks that train

    def free_slots(self, waiting: int) -> int:
        """Returns how many of so many waiting jobs can be taken now."""
        if self._left:
            return 0
        if self._stack is None:
            return waiting
        return min(waiting, self._stack - len(self._taken))

    def submit(self, job: Job) -> None:
        """Puts a job beside the others."""
        self._taken.append(job)

    def wait(self, progress: Progress) -> list[tuple[Job, Outcome]]:
        """Trains what was taken, until it is known what becomes of one."""
        if not self._left:
            jobs, self._taken = self._taken, []
            self._left = len(jobs)
            self._training = self._train(jobs, progress)
        done = next(self._training)
        self._left -= 1
        return [done]

    def _train(
        self, jobs: list[Job], progress: Progress
    ) -> Iterator[tuple[Job, Outcome]]:
        def tell(i: int, step: int, figures: Mapping[str, float]) -> None:
            progress(jobs[i], step, figures)

        for i, outcome in self._trainer.outcomes(jobs, tell):
            yield jobs[i], outcome
