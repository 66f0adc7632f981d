"""This module knows how searches and their controls are worked off together.

Every network is trained once, and kept; each as soon as what it starts from is
there. Tickets wait for the level before; controls for the ticket of theirs.
Other processes may work off the same: each network is leased, and what
another one trains is waited for.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tf_lottery import controls
from tf_lottery.controls import Control
from tf_lottery.core import seeds
from tf_lottery.lottery import stability
from tf_lottery.lottery.search import Pruning, find_tickets
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs import network_plan
from tf_lottery.runs.executors import Executor
from tf_lottery.runs.network_plan import Plan
from tf_lottery.runs.progress import Progress
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.training import (
    Diverged,
    Job,
    Outcome,
    State,
    Trainer,
    TrainingResult,
    checkpoint,
)
from tf_lottery.training.state import Arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A network of a study that is to be trained.

    Attributes:
        replicate: Which replicate it belongs to.
        of: The ticket of its level.
        control: What makes the control of the ticket; None: the ticket
            itself is trained.
        seed: Seed of its training, and of the control.
        keeps_slots: Whether what follows needs the optimizer at the end.
        dependents: Level and variant of the networks that are trained only if
            this one is.
    """

    replicate: int
    of: Ticket
    control: Control | None
    seed: int
    keeps_slots: bool = False
    dependents: frozenset[network_plan.Name] = frozenset()

    def ticket(self) -> Ticket:
        """Returns what is trained: made anew each time, for many may wait."""
        if self.control is None:
            return self.of
        return self.control(self.of, self.seed)

    @property
    def is_dense(self) -> bool:
        """Whether it is the dense network, of which θk is a state."""
        return self.control is None and self.of.level == 0


class ReplicateSearch:
    """One search on its way from level to level, with its controls.

    Args:
        replicate: Under which replicate it is kept.
        dense: The ticket of level 0.
        pruning: How it prunes.
        variants: What is trained beside each ticket, by name.
        seed: Seed of training and of the controls.
        found: Called with the ticket of each level once it is trained;
            returns whether to go on to the next.
    """

    def __init__(
        self,
        replicate: int,
        dense: Ticket,
        pruning: Pruning,
        variants: Mapping[str, Control],
        seed: int,
        found: Callable[[Ticket], bool] | None = None,
    ) -> None:
        self.replicate = replicate
        self._pruning, self._seed, self._found = pruning, seed, found
        self._of_tickets = tuple(variants.values())
        self._of_dense = tuple(controls.of_dense(variants).values())
        self._plan = Plan(pruning.levels, variants, pruning.schedule)
        self._search = find_tickets(dense, pruning)
        self.dense = self._task(next(self._search))

    def after(self, task: Task, run: Outcome) -> list[Task]:
        """Returns what can be trained now that a network of the walk is.

        Of a ticket that diverged there are no controls, and the next level
        only if it does not depend on that ticket.
        """
        if task.control is not None:
            return []
        if isinstance(run, Diverged):
            return self._next(run)
        goes_on = True
        if self._found:
            goes_on = self._found(
                dataclasses.replace(
                    task.of,
                    metrics=run.metrics,
                    trained=run.trained,
                    best=run.best,
                )
            )
        if task.is_dense:
            at_k = fork_at(task.of, run.captured[0])
            tasks = [self._task(at_k, control) for control in self._of_dense]
        else:
            tasks = [self._task(task.of, made) for made in self._of_tickets]
        return [*self._next(run), *tasks] if goes_on else tasks

    def _next(self, run: Outcome) -> list[Task]:
        """Returns the ticket of the next level, if there is one."""
        try:
            return [self._task(self._search.send(run))]
        except StopIteration:
            return []

    def _task(self, ticket: Ticket, control: Control | None = None) -> Task:
        task = Task(self.replicate, ticket, control, self._seed)
        if control is not None:
            return task
        return dataclasses.replace(
            task,
            keeps_slots=self._pruning.rewind_mode == "nothing",
            dependents=self._plan.dependents(ticket.level),
        )


def fork_at(dense: Ticket, theta_k: State) -> Ticket:
    """Returns the dense network at step k, from where copies part."""
    return dataclasses.replace(dense, origin=theta_k)


@dataclasses.dataclass
class _TaskQueue:
    """Where the tasks of a study are while it is worked off.

    Attributes:
        after: Returns what can be trained after a task.
        new: Of which it is not known whether they are kept.
        waiting: Which nobody trains.
        under_way: Which this process trains: by job, with ticket and lease.
        elsewhere: Which other processes train, by lease.
        has_told: Whether the user knows that others are waited for.
    """

    after: Callable[[Task, Outcome], list[Task]]
    new: list[Task]
    waiting: list[Task] = dataclasses.field(default_factory=list)
    running: dict[Job, tuple[Task, Ticket, str]] = dataclasses.field(
        default_factory=dict
    )
    remote: dict[str, Task] = dataclasses.field(default_factory=dict)
    has_told: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do but to wait for others."""
        at_hand = self.new or self.waiting or self.running
        return bool(self.remote) and not at_hand

    @property
    def is_empty(self) -> bool:
        """Whether everything is trained that can be."""
        at_hand = self.new or self.waiting or self.running
        return not self.remote and not at_hand


class Scheduler:
    """Searches that are worked off together, and kept in one directory.

    Args:
        trainer: Of the architecture of all searches; it reads and writes
            checkpoints, and need not be what trains.
        directory: Where networks are kept, and found if they are there.
        rewind: The step k of the dense network's training that tickets
            restart from; its state is kept beside the tickets. None: the
            first stable one, which `settle` finds.
        progress: Told how it goes.
        checkpoint_steps: Further steps of which the dense network's state is
            kept.
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
        self._captures = tuple(sorted({*self._candidates, *checkpoint_steps}))
        self._settled: dict[int, Outcome] = {}

    def theta_0(self, replicate: int, initial: State) -> State:
        """Returns θ0: the run directory's, if it keeps one."""
        if not self._directory.has_checkpoint(replicate, 0):
            self._keep(replicate, initial)
        return self._restored(replicate, 0)

    def settle(
        self,
        replicate_searches: Sequence[ReplicateSearch],
        executor: Executor,
        order: Iterable[ReplicateSearch] | None = None,
    ) -> None:
        """Finds the step that tickets restart from, if it is not given.

        It is the first from which the dense network of the first search is
        stable, judged on validation data (else on training data), never on
        test data; of the next search, if that network diverged. Differs from
        Frankle et al. 2020 (arXiv:1912.05671), who look at each sparse
        subnetwork too: in their Table of networks those are stable no later
        than the dense ones, and cost a search each. If every dense network
        diverged there is nothing to find, and nothing that needs it.

        Args:
            replicate_searches: The searches, whose dense networks are trained
                together.
            executor: Who trains.
            order: All searches of the run, those of other processes too, in
                the order in which they are asked. None: `replicate_searches`.

        Raises:
            ValueError: No step is stable.
        """
        if self._rewind is not None:
            return
        found = self._directory.load_rewind()
        if found is None:
            found = self._first_stable(
                replicate_searches, executor, order or replicate_searches
            )
            if found is None:
                return
            # Another process may have found it first, and restarted there.
            found = self._directory.load_rewind() or found
            self._directory.save_rewind(found)
        self._rewind = found["step"]
        self._progress.say(
            f"Tickets restart from step {found['step']:,}, the first stable "
            f"one: {len(found['barriers'])} copies of the dense network, "
            f"{found['steps_trained']:,} steps, were trained to find it."
        )

    def _first_stable(
        self,
        replicate_searches: Sequence[ReplicateSearch],
        executor: Executor,
        order: Iterable[ReplicateSearch],
    ) -> dict[str, Any] | None:
        """Returns how the step was found; None: all dense networks diverged."""
        outcomes = self._train(
            [replicate_search.dense for replicate_search in replicate_searches],
            executor,
        )
        for replicate_search, outcome in zip(
            replicate_searches, outcomes, strict=True
        ):
            self._settled[replicate_search.replicate] = outcome
        for replicate_search in order:
            if replicate_search.replicate not in self._settled:
                self._settled[replicate_search.replicate] = self._of_others(
                    replicate_search, executor
                )
            dense = self._settled[replicate_search.replicate]
            if isinstance(dense, TrainingResult):
                return self._stable_from(
                    replicate_search.dense, dense.trained, executor
                )
        return None

    def _of_others(
        self, replicate_search: ReplicateSearch, executor: Executor
    ) -> Outcome:
        """Trains the dense network of a search of another process."""
        steps = self._trainer.steps
        self._progress.expect(steps)
        (outcome,) = self._train([replicate_search.dense], executor)
        if isinstance(outcome, Diverged):
            # What depends on it was never this process's to train.
            self._progress.expect(
                steps * len(replicate_search.dense.dependents)
            )
        return outcome

    def _stable_from(
        self, task: Task, dense: Arrays, executor: Executor
    ) -> dict[str, Any]:
        has_validation = self._trainer.data.validation is not None
        split = "validation" if has_validation else "train"

        def errors(weights: Arrays, between: bool) -> dict[str, float]:
            return self._trainer.errors(
                weights, [split], reestimate_batch_norm=between
            )

        def barrier(step: int) -> float:
            def probe(ticket: Ticket, seed: int) -> Ticket:
                # Not the copy by which the run is judged later.
                own = seeds.integer(seed, "probe")
                made = controls.data_order(ticket, own)
                return dataclasses.replace(made, variant=f"probe_{step}")

            at_k = fork_at(task.of, self._restored(task.replicate, step))
            copy = Task(task.replicate, at_k, probe, task.seed)
            self._progress.expect(self._trainer.steps)
            (run,) = self._train([copy], executor)
            if isinstance(run, Diverged):
                return math.inf
            line = stability.interpolate(dense, run.trained, errors)
            return line.barrier(split)

        step, barriers = stability.first_stable(self._candidates, barrier)
        return {
            "step": step,
            "split": split,
            # JSON has no infinity: null is that of a copy that diverged.
            "barriers": {
                str(k): barriers[k] if math.isfinite(barriers[k]) else None
                for k in sorted(barriers)
            },
            "steps_trained": sum(self._trainer.steps - k for k in barriers),
        }

    def _train(
        self, tasks: Sequence[Task], executor: Executor
    ) -> list[Outcome]:
        """Trains what nothing else waits for."""
        runs: dict[Task, Outcome] = {}

        def done(task: Task, run: Outcome) -> list[Task]:
            runs[task] = run
            return []

        self._work(list(tasks), executor, done)
        return [runs[task] for task in tasks]

    def run(
        self, replicate_searches: Sequence[ReplicateSearch], executor: Executor
    ) -> None:
        """Trains everything, or what of it is not done yet.

        A network that diverges ends nothing but what depends on it: see
        `Task.dependents`.
        """
        self.settle(replicate_searches, executor)
        by_replicate = {
            replicate_search.replicate: replicate_search
            for replicate_search in replicate_searches
        }
        self._work(
            [replicate_search.dense for replicate_search in replicate_searches],
            executor,
            lambda task, run: by_replicate[task.replicate].after(task, run),
        )

    def _work(
        self,
        new: list[Task],
        executor: Executor,
        after: Callable[[Task, Outcome], list[Task]],
    ) -> None:
        queue = _TaskQueue(after, new)

        def tell(job: Job, step: int, figures: Mapping[str, Any]) -> None:
            task, ticket, _ = queue.running[job]
            self._directory.upload_unfinished(task.replicate, ticket)
            self._progress.advance(task.replicate, ticket, step, figures)

        with self._directory.leases as leases:
            while not queue.is_empty:
                self._check_stored(queue)
                self._submit_ready(queue, executor)
                for job, run in executor.wait(tell) if queue.running else ():
                    task, ticket, lease = queue.running.pop(job)
                    run = self._save(task, ticket, run)
                    leases.release(lease)
                    queue.new += after(task, run)
                self._check_remote(queue)

    def _check_stored(self, queue: "_TaskQueue") -> None:
        """Leaves what is to be trained, and nothing that is kept."""
        while queue.new:
            task = queue.new.pop(0)
            run = self._kept(task)
            if run is None:
                queue.waiting.append(task)
            else:
                queue.new += queue.after(task, run)
        # Nobody waits for a control; the next level waits for a ticket.
        queue.waiting.sort(key=lambda task: task.control is not None)

    def _submit_ready(self, queue: "_TaskQueue", executor: Executor) -> None:
        """Gives the crew what no other process is training."""
        leases = self._directory.leases
        while queue.waiting and (
            slots := executor.free_slots(len(queue.waiting))
        ):
            for task in queue.waiting[:slots]:
                job, ticket = self._job(task)
                lease = self._directory.lease_name(task.replicate, ticket)
                if not leases.acquire(lease):
                    queue.remote[lease] = task
                elif (run := self._kept(task)) is not None:
                    # Another process kept it since this one looked.
                    leases.release(lease)
                    queue.new += queue.after(task, run)
                else:
                    self._directory.download_unfinished(task.replicate, ticket)
                    queue.running[job] = task, ticket, lease
                    executor.submit(job)
            del queue.waiting[:slots]

    def _check_remote(self, queue: "_TaskQueue") -> None:
        """Takes back what other processes are done with, or died over."""
        leases = self._directory.leases
        for lease in [c for c in queue.remote if leases.is_free(c)]:
            queue.new.append(queue.remote.pop(lease))
        if queue.is_idle:
            if not queue.has_told:
                holder = leases.holder(next(iter(queue.remote)))
                self._progress.say(f"Waiting for what {holder} trains.")
                queue.has_told = True
            time.sleep(leases.poll_interval)

    def _job(self, task: Task) -> tuple[Job, Ticket]:
        ticket = task.ticket()
        job = Job(
            ticket.start,
            ticket.masks,
            task.seed if ticket.data_seed is None else ticket.data_seed,
            capture=self._captures if task.is_dense else (),
            keeps_slots=task.keeps_slots,
            folder=self._directory.unfinished(task.replicate, ticket),
            architecture=ticket.architecture
            if ticket.architecture != task.of.architecture
            else None,
        )
        return job, ticket

    def _kept(self, task: Task) -> Outcome | None:
        if task.is_dense and task.replicate in self._settled:
            return self._with_theta_k(task, self._settled[task.replicate])
        ticket = task.ticket()
        run = self._directory.load(task.replicate, ticket)
        if run is None:
            return self._kept_diverged(task, ticket)
        if task.keeps_slots and not run.slots:
            return None
        found = self._directory.has_checkpoint
        if task.is_dense and not all(
            found(task.replicate, step) for step in self._captures
        ):
            return None
        self._progress.kept(task.replicate, ticket, run.metrics)
        return self._with_theta_k(task, run)

    def _kept_diverged(self, task: Task, ticket: Ticket) -> Diverged | None:
        outcome = self._directory.load_diverged(task.replicate, ticket)
        if outcome is not None:
            self._progress.expect(-self._trainer.steps)
            self._tell_diverged(task, ticket, outcome)
        return outcome

    def _save(self, task: Task, ticket: Ticket, run: Outcome) -> Outcome:
        if isinstance(run, Diverged):
            self._directory.save_diverged(task.replicate, ticket, run)
            self._progress.advance(task.replicate, ticket, run.last, {})
            self._progress.expect(run.last - self._trainer.steps)
            self._tell_diverged(task, ticket, run)
            return run
        for state in run.captured:
            if state.step:
                self._keep(task.replicate, state)
        # A ticket is the same bytes however long it took.
        metrics = {k: v for k, v in run.metrics.items() if k != "seconds"}
        trained = dataclasses.replace(ticket, metrics=metrics)
        self._directory.save(task.replicate, trained, run)
        self._progress.end(task.replicate, ticket, run.metrics)
        return self._with_theta_k(task, run)

    def _tell_diverged(
        self, task: Task, ticket: Ticket, outcome: Diverged
    ) -> None:
        untrained = network_plan.described(ticket.level, task.dependents)
        self._progress.diverged(task.replicate, ticket, outcome, untrained)
        self._progress.expect(-self._trainer.steps * len(task.dependents))

    def _with_theta_k(self, task: Task, run: Outcome) -> Outcome:
        """Gives the dense network's run θk, as it is kept, once k is known."""
        if isinstance(run, Diverged):
            return run
        if not task.is_dense or self._rewind is None:
            return run
        theta_k = self._restored(task.replicate, self._rewind)
        return dataclasses.replace(run, captured=(theta_k,))

    def _keep(self, replicate: int, state: State) -> None:
        def write(prefix: pathlib.Path) -> None:
            checkpoint.save(self._trainer, state, prefix)

        self._directory.save_checkpoint(replicate, state.step, write)

    def _restored(self, replicate: int, step: int) -> State:
        return self._directory.load_checkpoint(
            replicate,
            step,
            lambda prefix: checkpoint.load(self._trainer, prefix),
        )
