"""This module knows how every ticket is trained once, and kept."""

import dataclasses
import pathlib

from tf_lottery.progress import Progress
from tf_lottery.store import RunDirectory
from tf_lottery.tickets import Ticket
from tf_lottery.training import Run, State, Trainer, checkpoint


class TrainOnce:
    """Trains tickets, unless the run directory holds the result already.

    Args:
        trainer: What trains them.
        directory: Where they are kept, and found if they are there.
        replicate: Under which replicate.
        rewind: The step k of the dense network's training that tickets
            restart from; its state is kept beside the tickets.
        progress: Told how it goes.
    """

    def __init__(
        self,
        trainer: Trainer,
        directory: RunDirectory,
        replicate: int,
        rewind: int,
        progress: Progress,
    ) -> None:
        self._trainer, self._directory = trainer, directory
        self._replicate, self._rewind = replicate, rewind
        self._progress = progress

    def theta_0(self) -> State:
        """Returns θ0: the run directory's, if it keeps one."""
        if not self._directory.has_checkpoint(self._replicate, 0):
            self._keep(self._trainer.state)
        return self._restored(0)

    def __call__(self, ticket: Ticket) -> Run:
        """Returns the run that trained this ticket, now or earlier."""
        dense = ticket.level == 0
        self._progress.begin(ticket)
        run = self._directory.load(self._replicate, ticket)
        if dense and not self._directory.has_checkpoint(
            self._replicate, self._rewind
        ):
            run = None
        kept = run is not None
        if run is None:
            run = self._trainer.train(
                ticket.start,
                ticket.masks,
                capture=self._rewind if dense else None,
                progress=self._progress.advance,
            )
            if run.captured is not None and self._rewind:
                self._keep(run.captured)
            trained = dataclasses.replace(ticket, metrics=run.metrics)
            self._directory.save(self._replicate, trained, run)
        self._progress.end(ticket, run.metrics, kept)
        if dense:
            theta_k = self._restored(self._rewind)
            run = dataclasses.replace(run, captured=theta_k)
        return run

    def _keep(self, state: State) -> None:
        def write(prefix: pathlib.Path) -> None:
            checkpoint.save(self._trainer, state, prefix)

        self._directory.save_checkpoint(self._replicate, state.step, write)

    def _restored(self, step: int) -> State:
        prefix = self._directory.checkpoint(self._replicate, step)
        return checkpoint.load(self._trainer, prefix)
