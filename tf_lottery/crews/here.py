"""This module knows a crew of one: this process."""

from tf_lottery.crews.crew import Progress
from tf_lottery.training import Job, Run, Trainer


class Here:
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
        self._stack = stack or trainer.most_side_by_side
        self._taken: list[Job] = []

    def room(self, waiting: int) -> int:
        """Returns how many of so many waiting jobs can be taken now."""
        return min(waiting, self._stack or waiting) - len(self._taken)

    def take(self, job: Job) -> None:
        """Puts a job beside the others."""
        self._taken.append(job)

    def finished(self, progress: Progress) -> list[tuple[Job, Run]]:
        """Trains what was taken."""
        jobs, self._taken = self._taken, []
        runs = self._trainer.train(
            jobs, lambda i, step, figures: progress(jobs[i], step, figures)
        )
        return list(zip(jobs, runs, strict=True))
