"""Schedules the training of searches and their controls.

Each network is trained once and stored in the run directory, as soon as its
starting state is available: a ticket after the ticket of the level before, a
control after its ticket.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_lottery.core import termination
from tf_lottery.lottery import stability
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs import network_graph
from tf_lottery.runs.executors import Executor
from tf_lottery.runs.progress import Progress
from tf_lottery.runs.replicate_search import ReplicateSearch, TrainingTask
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.runs.stability_probe import StabilityProbe
from tf_lottery.runs.task_queue import OnTaskEnd, RunningTask, TaskQueue
from tf_lottery.training import (
    Diverged,
    Job,
    Outcome,
    State,
    Trainer,
    TrainingResult,
    checkpoint,
)


class Scheduler:
    """Trains searches together and stores their networks in one directory.

    Args:
        trainer: A trainer of the architecture of all searches. It reads and
            writes checkpoints; the executor may train with others.
        directory: The run directory.
        rewind: The step k of the dense network's training that tickets
            rewind to, >= 0; its state θk is stored too. None: the first
            stable step, which `find_rewind_step` finds.
        progress: Shows the progress.
        checkpoint_steps: Further steps at which the dense network's state is
            stored.
    """

    def __init__(
        self,
        trainer: Trainer,
        directory: RunDirectory,
        rewind: int | None,
        progress: Progress,
        checkpoint_steps: Sequence[int] = (),
    ) -> None:
        self._trainer, self._directory = trainer, directory
        self._rewind, self._progress = rewind, progress
        self._candidates = (
            stability.candidates(trainer.steps) if rewind is None else (rewind,)
        )
        steps = {*self._candidates, *checkpoint_steps}
        self._captured_steps = tuple(sorted(steps))
        # Of the dense networks that were trained before k was known.
        self._dense_outcomes: dict[int, Outcome] = {}

    def theta_0(self, replicate: int, initial: State) -> State:
        """Returns θ0 of the run directory, after storing it if there is none.

        Args:
            replicate: The replicate, >= 0.
            initial: The state to store.
        """
        if not self._directory.has_checkpoint(replicate, 0):
            self._save_state(replicate, initial)
        return self._load_state(replicate, 0)

    def run(
        self, searches: Sequence[ReplicateSearch], executor: Executor
    ) -> None:
        """Trains all networks that the run directory does not hold.

        If a network diverges, only its dependents are not trained.

        Args:
            searches: The searches.
            executor: Trains the networks.
        """
        self.find_rewind_step(searches, executor)
        by_replicate = {search.replicate: search for search in searches}
        self._run_tasks(
            [search.dense for search in searches],
            executor,
            lambda task, outcome: by_replicate[task.replicate].on_task_end(
                task, outcome
            ),
        )

    def find_rewind_step(
        self,
        searches: Sequence[ReplicateSearch],
        executor: Executor,
        order: Iterable[ReplicateSearch] | None = None,
    ) -> None:
        """Finds the step that tickets rewind to, unless it was given.

        It is the first step from which the dense network of the first search
        is stable; that of the next search, if the first network diverged. If
        all dense networks diverged, no step is needed, and none is found.

        Differs from Frankle et al. 2020 (arXiv:1912.05671), who look at each
        sparse subnetwork too: in their Table of networks those are stable no
        later than the dense ones, and cost a search each.

        Args:
            searches: The searches, whose dense networks are trained together.
            executor: Trains the networks.
            order: All searches of the run, those of other shards too, in
                the order in which their dense networks are tried. None:
                `searches`.

        Raises:
            UserError: No step is stable.
        """
        if self._rewind is not None:
            return
        content = self._directory.load_rewind()
        if content is None:
            content = self._first_stable(searches, executor, order or searches)
            if content is None:
                return
            # Another shard may have saved a step first, and rewound to it.
            content = self._directory.load_rewind() or content
            self._directory.save_rewind(content)
        self._rewind = content["step"]
        self._progress.write(
            f"Tickets restart from step {content['step']:,}, the first stable "
            f"one: {len(content['barriers'])} copies of the dense network, "
            f"{content['steps_trained']:,} steps, were trained to find it."
        )

    def _first_stable(
        self,
        searches: Sequence[ReplicateSearch],
        executor: Executor,
        order: Iterable[ReplicateSearch],
    ) -> dict[str, Any] | None:
        """Returns rewind.json's content; None if all networks diverged."""
        outcomes = self._train([search.dense for search in searches], executor)
        for search, outcome in zip(searches, outcomes, strict=True):
            self._dense_outcomes[search.replicate] = outcome
        for search in order:
            replicate = search.replicate
            if replicate not in self._dense_outcomes:
                self._dense_outcomes[replicate] = self._train_dense_of_other(
                    search, executor
                )
            outcome = self._dense_outcomes[replicate]
            if isinstance(outcome, TrainingResult):
                return StabilityProbe(
                    search.dense,
                    outcome.trained,
                    self._trainer,
                    functools.partial(self._load_state, replicate),
                    functools.partial(self._train_probe, executor=executor),
                ).find(self._candidates)
        return None

    def _train_dense_of_other(
        self, search: ReplicateSearch, executor: Executor
    ) -> Outcome:
        """Trains the dense network of another shard's search."""
        steps = self._trainer.steps
        self._progress.add_steps(steps)
        (outcome,) = self._train([search.dense], executor)
        if isinstance(outcome, Diverged):
            # Its dependents were subtracted, but never counted here.
            self._progress.add_steps(steps * len(search.dense.dependents))
        return outcome

    def _train_probe(self, task: TrainingTask, executor: Executor) -> Outcome:
        self._progress.add_steps(self._trainer.steps)
        (outcome,) = self._train([task], executor)
        return outcome

    def _train(
        self, tasks: Sequence[TrainingTask], executor: Executor
    ) -> list[Outcome]:
        """Returns the outcomes of tasks, without starting further tasks."""
        outcomes: dict[TrainingTask, Outcome] = {}

        def on_task_end(
            task: TrainingTask, outcome: Outcome
        ) -> list[TrainingTask]:
            outcomes[task] = outcome
            return []

        self._run_tasks(list(tasks), executor, on_task_end)
        return [outcomes[task] for task in tasks]

    def _run_tasks(
        self,
        tasks: list[TrainingTask],
        executor: Executor,
        on_task_end: OnTaskEnd,
    ) -> None:
        queue = TaskQueue(on_task_end, tasks)

        def on_progress(
            job: Job, step: int, metrics: Mapping[str, Any]
        ) -> None:
            task, ticket = queue.running[job]
            self._directory.upload_unfinished(task.replicate, ticket)
            self._progress.advance(task.replicate, ticket, step, metrics)

        while not queue.is_empty:
            self._check_stored(queue)
            self._submit_ready(queue, executor)
            # What is ready still has no slot: executors wait for one.
            has_work = queue.running or queue.ready
            try:
                ended = executor.wait(on_progress) if has_work else ()
            except termination.Terminated:
                self._upload(queue)
                raise
            for job, outcome in ended:
                task, ticket = queue.running.pop(job)
                queue.end(task, self._save(task, ticket, outcome))

    def _upload(self, queue: TaskQueue) -> None:
        """Uploads what training saved before it was told to end."""
        for task, ticket in queue.running.values():
            self._directory.upload_unfinished(
                task.replicate, ticket, at_once=True
            )

    def _check_stored(self, queue: TaskQueue) -> None:
        """Ends the tasks whose outcome is stored; the others are ready."""
        while queue.unchecked:
            task = queue.unchecked.pop(0)
            outcome = self._load(task)
            if outcome is None:
                queue.ready.append(task)
            else:
                queue.end(task, outcome)
        # The next level waits for a ticket, and nothing for a control.
        queue.ready.sort(key=lambda task: task.control is not None)

    def _submit_ready(self, queue: TaskQueue, executor: Executor) -> None:
        while queue.ready and (slots := executor.free_slots(len(queue.ready))):
            for task in queue.ready[:slots]:
                job, ticket = self._job(task)
                queue.running[job] = RunningTask(task, ticket)
                executor.submit(job)
            del queue.ready[:slots]

    def _job(self, task: TrainingTask) -> tuple[Job, Ticket]:
        ticket = task.ticket()
        job = Job(
            ticket.start,
            ticket.masks,
            task.seed if ticket.data_seed is None else ticket.data_seed,
            capture=self._captured_steps if task.is_dense else (),
            keeps_slots=task.keeps_slots,
            folder=self._directory.unfinished(task.replicate, ticket),
            architecture=ticket.architecture
            if ticket.architecture != task.base.architecture
            else None,
        )
        return job, ticket

    def _load(self, task: TrainingTask) -> Outcome | None:
        """Returns the stored outcome of a task, if all it needs is stored."""
        replicate = task.replicate
        if task.is_dense and replicate in self._dense_outcomes:
            return self._with_theta_k(task, self._dense_outcomes[replicate])
        ticket = task.ticket()
        result = self._directory.load(replicate, ticket)
        if result is None:
            return self._load_diverged(task, ticket)
        if task.keeps_slots and not result.slots:
            return None
        if task.is_dense and not all(
            self._directory.has_checkpoint(replicate, step)
            for step in self._captured_steps
        ):
            return None
        self._progress.restored(replicate, ticket, result.metrics)
        return self._with_theta_k(task, result)

    def _load_diverged(
        self, task: TrainingTask, ticket: Ticket
    ) -> Diverged | None:
        outcome = self._directory.load_diverged(task.replicate, ticket)
        if outcome is not None:
            self._progress.add_steps(-self._trainer.steps)
            self._report_diverged(task, ticket, outcome)
        return outcome

    def _save(
        self, task: TrainingTask, ticket: Ticket, outcome: Outcome
    ) -> Outcome:
        replicate = task.replicate
        if isinstance(outcome, Diverged):
            self._directory.save_diverged(replicate, ticket, outcome)
            self._progress.advance(replicate, ticket, outcome.last, {})
            self._progress.add_steps(outcome.last - self._trainer.steps)
            self._report_diverged(task, ticket, outcome)
            return outcome
        for state in outcome.captured:
            if state.step:
                self._save_state(replicate, state)
        # A ticket is the same bytes however long its training took.
        metrics = {k: v for k, v in outcome.metrics.items() if k != "seconds"}
        trained = dataclasses.replace(ticket, metrics=metrics)
        self._directory.save(replicate, trained, outcome)
        self._progress.trained(replicate, ticket, outcome.metrics)
        return self._with_theta_k(task, outcome)

    def _report_diverged(
        self, task: TrainingTask, ticket: Ticket, outcome: Diverged
    ) -> None:
        untrained = network_graph.describe(ticket.level, task.dependents)
        self._progress.diverged(task.replicate, ticket, outcome, untrained)
        self._progress.add_steps(-self._trainer.steps * len(task.dependents))

    def _with_theta_k(self, task: TrainingTask, outcome: Outcome) -> Outcome:
        """Adds θk, as it is stored, to a dense network's result."""
        if isinstance(outcome, Diverged):
            return outcome
        if not task.is_dense or self._rewind is None:
            return outcome
        theta_k = self._load_state(task.replicate, self._rewind)
        return dataclasses.replace(outcome, captured=(theta_k,))

    def _save_state(self, replicate: int, state: State) -> None:
        def write(prefix: pathlib.Path) -> None:
            checkpoint.save(self._trainer, state, prefix)

        self._directory.save_checkpoint(replicate, state.step, write)

    def _load_state(self, replicate: int, step: int) -> State:
        def read(prefix: pathlib.Path) -> State:
            return checkpoint.load(self._trainer, prefix)

        return self._directory.load_checkpoint(replicate, step, read)
