"""Training of all networks of a search, watched by Keras callbacks."""

import contextlib
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from tf_lottery.analysis import smallest
from tf_lottery.analysis.looks import Looks
from tf_lottery.core.errors import UserError
from tf_lottery.lottery.ticket import Ticket
from tf_lottery.runs import provenance
from tf_lottery.runs.executors import (
    Executor,
    InProcessExecutor,
    MultiWorkerExecutor,
    all_cores_executor,
    cluster_executor,
)
from tf_lottery.runs.progress import Progress
from tf_lottery.runs.run_directory import (
    DivergedNetwork,
    Record,
    RunDirectory,
    is_run,
)
from tf_lottery.runs.scheduler import Scheduler
from tf_lottery.ticket_search import logs
from tf_lottery.ticket_search.callbacks import CallbackBridge
from tf_lottery.ticket_search.search_setup import SearchSetup
from tf_lottery.ticket_search.starts import ReplicateStarts, weights_restored
from tf_lottery.training import Trainer
from tf_lottery.training.distribution import strategies


class SearchResult(NamedTuple):
    """Result of a search.

    Attributes:
        tickets: Trained tickets of replicate 0, by level.
        records: Records of all trained networks.
        diverged: Networks whose loss became nan or infinite.
    """

    tickets: list[Ticket]
    records: list[Record]
    diverged: list[DivergedNetwork]


def train(
    setup: SearchSetup,
    trainer: Trainer,
    starts: ReplicateStarts,
    fingerprint: Mapping[str, Any],
    callbacks: Sequence[keras.callbacks.Callback],
    run_dir: str | pathlib.Path | None,
    verbose: bool,
    tickets: list[Ticket],
    cluster: str | None = None,
) -> SearchResult:
    """Trains every network that the run directory does not hold yet.

    Args:
        setup: Model and settings of the search.
        trainer: Trains the networks.
        starts: Initial states and seeds of all replicates.
        fingerprint: What determines the results.
        callbacks: Keras callbacks; they see replicate 0 only.
        run_dir: Directory or bucket address; None: a temporary directory.
        verbose: Whether to show progress.
        tickets: Receives the ticket of each level as soon as it is trained, so
            that an interrupted search leaves what it has.
        cluster: The Ray cluster that trains the networks; None: this machine.

    Raises:
        UserError: The directory holds another run, a callback changed a
            network, the dense network diverged, or the cluster does not go
            with a strategy or a callback.
    """
    replicates = setup.settings.replicates
    with contextlib.ExitStack() as stack:
        executor: Executor = InProcessExecutor(trainer)
        if strategies.has_workers(trainer.strategy):
            executor = stack.enter_context(
                MultiWorkerExecutor(trainer, fingerprint)
            )
        if run_dir is None:
            run_dir = stack.enter_context(tempfile.TemporaryDirectory())
        directory = _open_run(setup, fingerprint, run_dir)
        bridge = _build_bridge(setup, trainer, callbacks)
        levels = _Levels(setup, trainer, directory, bridge, tickets)
        progress = Progress(
            replicates * setup.networks * trainer.steps,
            verbose,
            replicates,
            on_evaluation=levels.on_evaluation,
        )
        stack.callback(progress.close)
        stack.enter_context(directory.owned(on_wait=progress.write))
        stack.enter_context(weights_restored(setup.model))
        _require_trains_elsewhere(cluster, trainer, bridge)
        if cluster is not None:
            executor = stack.enter_context(
                cluster_executor(
                    trainer,
                    cluster,
                    starts.initial(trainer, 0),
                    progress.write,
                    setup.rebuilt_architecture,
                )
            )
        elif trainer.strategy is None and not bridge.sees_training:
            executor = stack.enter_context(
                all_cores_executor(
                    trainer,
                    setup.independent_networks,
                    _missing_steps(setup, trainer, directory),
                    starts.initial(trainer, 0),
                    progress.write,
                    setup.rebuilt_architecture,
                )
            )
        scheduler = Scheduler(
            trainer, directory, setup.rewind_step(trainer), progress
        )
        bridge.train_begin()
        bridge.level_begin(0)
        searches = [
            setup.replicate_search(
                scheduler,
                trainer,
                r,
                starts,
                levels.is_wanted_after if r else levels.on_level_end,
            )
            for r in range(replicates)
        ]
        scheduler.run(searches, executor)
        result = SearchResult(
            tickets,
            [r for r in directory.records() if r.replicate < replicates],
            directory.diverged(),
        )
        if not tickets:
            dense = next(n for n in result.diverged if not n.replicate)
            raise UserError(f"{dense.outcome}")
        bridge.train_end()
        if isinstance(executor, MultiWorkerExecutor):
            executor.set_result(result)
        return result


def _require_trains_elsewhere(
    cluster: str | None, trainer: Trainer, bridge: CallbackBridge
) -> None:
    """Raises a UserError for what needs the networks in this process."""
    if cluster is None:
        return
    if trainer.strategy is not None:
        raise UserError(
            "The workers of a cluster train without a strategy: leave out "
            "`cluster`, or `strategy`."
        )
    if bridge.sees_training:
        raise UserError(
            "A callback that observes training (`on_train_batch_end`) needs "
            "all networks in this process: leave out `cluster`, or the "
            "callback."
        )


class _Levels:
    """Shows replicate 0 to callbacks, and decides which level is the last.

    Args:
        setup: Model and settings of the search.
        trainer: Trains the networks.
        directory: Holds the records of trained networks.
        bridge: Calls the callbacks.
        tickets: Receives the ticket of each level.
    """

    def __init__(
        self,
        setup: SearchSetup,
        trainer: Trainer,
        directory: RunDirectory,
        bridge: CallbackBridge,
        tickets: list[Ticket],
    ) -> None:
        self._max_drop = setup.settings.max_drop
        self._trainer, self._directory = trainer, directory
        self._bridge, self._tickets = bridge, tickets
        self._last = setup.pruning.levels

    def on_evaluation(
        self,
        replicate: int,
        ticket: Ticket,
        step: int,
        metrics: Mapping[str, Any],
    ) -> None:
        """Shows an evaluation to the callbacks, if it is of replicate 0."""
        is_seen = replicate == 0 and ticket.variant == "ticket"
        if is_seen and self._bridge.sees_training:
            weights = self._trainer.weights_evaluated()
            self._bridge.evaluated(step, weights, logs.evaluation_logs(metrics))

    def on_level_end(self, ticket: Ticket) -> bool:
        """Returns whether replicate 0 goes on after a level."""
        if ticket.level > len(self._tickets):
            return True  # An earlier level diverged: one-shot goes on.
        self._tickets.append(ticket)
        weights = ticket.trained if ticket.best is None else ticket.best
        goes_on = self._bridge.level_end(
            ticket.level, weights or {}, logs.level_logs(ticket)
        ) and self._keeps_within_drop(ticket.level)
        if not goes_on:
            self._last = ticket.level
        if ticket.level < self._last:
            self._bridge.level_begin(ticket.level + 1)
        return goes_on

    def is_wanted_after(self, ticket: Ticket) -> bool:
        """Returns whether other replicates go on after a level."""
        return ticket.level < self._last

    def _keeps_within_drop(self, level: int) -> bool:
        """Returns whether a level is shown to lose at most `max_drop`."""
        if self._max_drop is None or not level:
            return True
        records = [
            r
            for r in self._directory.records()
            if r.level <= level and r.replicate == 0
        ]
        drops = smallest.drops(records, self._max_drop, smallest.CONFIDENCE)
        chosen = smallest.choose(drops, self._max_drop)
        return chosen is not None and chosen.level == level


def _open_run(
    setup: SearchSetup,
    fingerprint: Mapping[str, Any],
    run_dir: str | pathlib.Path,
) -> RunDirectory:
    replicates = setup.settings.replicates
    if is_run(run_dir):
        begun = RunDirectory.open(run_dir).replicates
        Looks.parse(replicates).require_continues(begun, str(run_dir))
    return RunDirectory.open_or_create(
        run_dir,
        fingerprint,
        {**provenance.versions(), "hardware": provenance.hardware()},
        replicates=replicates,
    )


def _missing_steps(
    setup: SearchSetup, trainer: Trainer, directory: RunDirectory
) -> int:
    """Returns the training steps of all networks that are not stored yet."""
    networks = setup.settings.replicates * setup.networks
    return (networks - len(directory.rows())) * trainer.steps


def _build_bridge(
    setup: SearchSetup,
    trainer: Trainer,
    callbacks: Sequence[keras.callbacks.Callback],
) -> CallbackBridge:
    recipe = trainer.recipe
    optimizer = keras.optimizers.get(recipe.optimizer)
    return CallbackBridge(
        callbacks,
        setup.model,
        {
            "optimizer": type(optimizer).from_config(optimizer.get_config()),
            "loss": recipe.loss,
            "loss_weights": recipe.loss_weights,
            "metrics": recipe.metrics,
            "weighted_metrics": recipe.weighted_metrics,
        },
        {
            "epochs": setup.pruning.levels + 1,
            "steps": -(-trainer.steps // trainer.evaluate_every),
            "verbose": 0,
        },
        tuple(trainer.sample(2)),
    )
