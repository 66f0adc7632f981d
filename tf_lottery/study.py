"""This module knows how searches and their controls are worked off together.

Every network is trained once, and kept; each as soon as what it starts from is
there. Tickets wait for the level before; controls for the ticket of theirs.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_lottery.controls import Control
from tf_lottery.crews import Crew
from tf_lottery.progress import Progress
from tf_lottery.search import Pruning, find_tickets
from tf_lottery.store import RunDirectory
from tf_lottery.tickets import Ticket
from tf_lottery.training import Job, Run, State, Trainer, checkpoint


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A network of a study that is to be trained.

    Attributes:
        replicate: Which replicate it belongs to.
        of: The ticket of its level.
        control: What makes the control of the ticket; None: the ticket
            itself is trained.
        seed: Seed of its training, and of the control.
    """

    replicate: int
    of: Ticket
    control: Control | None
    seed: int

    def ticket(self) -> Ticket:
        """Returns what is trained: made anew each time, for many may wait."""
        if self.control is None:
            return self.of
        return self.control(self.of, self.seed)


class Walk:
    """One search on its way from level to level, with its controls.

    Args:
        replicate: Under which replicate it is kept.
        dense: The ticket of level 0.
        pruning: How it prunes.
        controls: For every level from 1 on.
        seed: Seed of training and of the controls.
        found: Called with the ticket of each level once it is trained.
    """

    def __init__(
        self,
        replicate: int,
        dense: Ticket,
        pruning: Pruning,
        controls: Sequence[Control],
        seed: int,
        found: Callable[[Ticket], None] | None = None,
    ) -> None:
        self.replicate = replicate
        self._controls, self._seed, self._found = controls, seed, found
        self._search = find_tickets(dense, pruning)

    def first(self) -> Task:
        """Returns the dense network."""
        return self._task(next(self._search))

    def after(self, task: Task, run: Run) -> list[Task]:
        """Returns what can be trained now that a network of the walk is."""
        if task.control is not None:
            return []
        if self._found:
            self._found(
                dataclasses.replace(
                    task.of, metrics=run.metrics, trained=run.trained
                )
            )
        controls = self._controls if task.of.level else ()
        tasks = [self._task(task.of, control) for control in controls]
        try:
            return [self._task(self._search.send(run)), *tasks]
        except StopIteration:
            return tasks

    def _task(self, ticket: Ticket, control: Control | None = None) -> Task:
        return Task(self.replicate, ticket, control, self._seed)


class Study:
    """Searches that are worked off together, and kept in one directory.

    Args:
        trainer: Of the architecture of all searches; it reads and writes
            checkpoints, and need not be what trains.
        directory: Where networks are kept, and found if they are there.
        rewind: The step k of the dense network's training that tickets
            restart from; its state is kept beside the tickets.
        progress: Told how it goes.
    """

    def __init__(
        self,
        trainer: Trainer,
        directory: RunDirectory,
        rewind: int,
        progress: Progress,
    ) -> None:
        self._trainer, self._directory = trainer, directory
        self._rewind, self._progress = rewind, progress

    def theta_0(self, replicate: int, initial: State) -> State:
        """Returns θ0: the run directory's, if it keeps one."""
        if not self._directory.has_checkpoint(replicate, 0):
            self._keep(replicate, initial)
        return self._restored(replicate, 0)

    def work_off(self, walks: Sequence[Walk], crew: Crew) -> None:
        """Trains everything, or what of it is not done yet."""
        by_replicate = {walk.replicate: walk for walk in walks}
        new = [walk.first() for walk in walks]
        waiting: list[Task] = []
        under_way: dict[Job, tuple[Task, Ticket]] = {}

        def tell(job: Job, step: int, figures: Mapping[str, Any]) -> None:
            task, ticket = under_way[job]
            self._progress.advance(task.replicate, ticket, step, figures)

        while new or waiting or under_way:
            while new:
                task = new.pop(0)
                run = self._kept(task)
                if run is None:
                    waiting.append(task)
                else:
                    new += by_replicate[task.replicate].after(task, run)
            # Nobody waits for a control; the next level waits for a ticket.
            waiting.sort(key=lambda task: task.control is not None)
            while waiting and (room := crew.room(len(waiting))):
                for task in waiting[:room]:
                    job, ticket = self._job(task)
                    under_way[job] = task, ticket
                    crew.take(job)
                del waiting[:room]
            for job, run in crew.finished(tell) if under_way else ():
                task, ticket = under_way.pop(job)
                run = self._save(task, ticket, run)
                new += by_replicate[task.replicate].after(task, run)

    def _job(self, task: Task) -> tuple[Job, Ticket]:
        ticket = task.ticket()
        is_dense = ticket.level == 0
        job = Job(
            ticket.start,
            ticket.masks,
            task.seed if ticket.data_seed is None else ticket.data_seed,
            capture=self._rewind if is_dense else None,
            folder=self._directory.unfinished(task.replicate, ticket),
            architecture=ticket.architecture
            if ticket.architecture != task.of.architecture
            else None,
        )
        return job, ticket

    def _kept(self, task: Task) -> Run | None:
        ticket = task.ticket()
        run = self._directory.load(task.replicate, ticket)
        if run is None or ticket.level:
            theta_k = None
        elif self._directory.has_checkpoint(task.replicate, self._rewind):
            theta_k = self._restored(task.replicate, self._rewind)
        else:
            run = None
        if run is None:
            return None
        self._progress.kept(task.replicate, ticket, run.metrics)
        return dataclasses.replace(run, captured=theta_k)

    def _save(self, task: Task, ticket: Ticket, run: Run) -> Run:
        if run.captured is not None:
            if self._rewind:
                self._keep(task.replicate, run.captured)
            theta_k = self._restored(task.replicate, self._rewind)
            run = dataclasses.replace(run, captured=theta_k)
        # A ticket is the same bytes however long it took.
        metrics = {k: v for k, v in run.metrics.items() if k != "seconds"}
        trained = dataclasses.replace(ticket, metrics=metrics)
        self._directory.save(task.replicate, trained, run)
        self._progress.end(task.replicate, ticket, run.metrics)
        return run

    def _keep(self, replicate: int, state: State) -> None:
        def write(prefix: pathlib.Path) -> None:
            checkpoint.save(self._trainer, state, prefix)

        self._directory.save_checkpoint(replicate, state.step, write)

    def _restored(self, replicate: int, step: int) -> State:
        prefix = self._directory.checkpoint(replicate, step)
        return checkpoint.load(self._trainer, prefix)
