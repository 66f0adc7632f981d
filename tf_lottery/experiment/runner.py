"""Runs of an experiment: replicates of one search, in one run directory."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_lottery import data
from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError
from tf_lottery.experiment import outcome
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.preparation import (
    PreparedExperiment,
    Preparer,
    build_trainer,
    independent_networks,
    search_setup,
)
from tf_lottery.experiment.shard import Shard
from tf_lottery.lottery import stability
from tf_lottery.runs import executors, provenance, run_directory
from tf_lottery.runs.executors import Executor
from tf_lottery.runs.progress import Progress
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.runs.scheduler import ReplicateSearch, Scheduler
from tf_lottery.training import Trainer, devices, plan
from tf_lottery.training.distribution import strategies


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run is executed, which does not change its results.

    The fields are arguments of `run_experiment`, which documents them.
    """

    preset: str = ""
    verbose: bool = True
    workers: int | None = None
    data_dir: data.DataDir = None
    deterministic: bool = False
    reusable_runs: Sequence[RunDirectory] = ()
    checkpoint_steps: Sequence[str] = ()
    shard: Shard = Shard()  # noqa: RUF009 - it is frozen
    strategy: tf.distribute.Strategy | None = None
    cluster: str | None = None

    def preparer(self) -> Preparer:
        """Returns the preparer of experiments with these options."""
        return Preparer(self.data_dir, self.strategy)


def run_experiment(
    config: Config,
    run_dir: str | os.PathLike[str],
    preset: str = "",
    verbose: bool = True,
    workers: int | None = None,
    data_dir: data.DataDir = None,
    deterministic: bool = False,
    reusable_runs: Sequence[RunDirectory] = (),
    checkpoint_steps: Sequence[str] = (),
    shard: Shard = Shard(),  # noqa: B008 - it is frozen
    strategy: tf.distribute.Strategy | None = None,
    cluster: str | None = None,
) -> RunDirectory | None:
    """Runs an experiment, and skips networks that are trained already.

    One process owns the run directory until it returns. If it dies, the next
    one goes on from there. Each shard has an owner of its own.

    Args:
        config: The settings.
        run_dir: A folder, or a bucket address, `gs://bucket/folder`. A run
            there with the same settings continues. It may grow by levels,
            replicates and controls.
        preset: The preset's name, for the records.
        verbose: Whether to show progress.
        workers: Number of processes that train networks in parallel, >= 1.
            None: the fastest number for this machine; on a GPU one process,
            which trains stacks of networks.
        data_dir: The folder of TensorFlow Datasets. None: its default. The
            folder does not determine the run, the data in it do.
        deterministic: Whether TensorFlow uses only operations that give the
            same bytes every time, in this process from now on. On a CPU
            results are the same bytes without it.
        reusable_runs: Runs that train in the same way on the same data. Their
            networks are copied if this run needs the same ones.
        checkpoint_steps: Lengths such as `"500it"`, or `"auto"`, at which θ is
            stored for later runs that rewind there.
        shard: The replicates that this process trains. It does not wait for
            the others.
        strategy: A `tf.distribute.Strategy` to train with. It does not
            determine the run.
        cluster: A Ray cluster whose nodes train: `"local"` is one of this
            machine's cores; `"auto"` the one that this machine is a node of;
            or the address of its head, such as `"10.0.0.1:6379"`. It does not
            determine the run. It needs `pip install 'tf-lottery[ray]'`.

    Returns:
        The run directory; None on a worker that is not the chief, because only
        the chief writes.

    Raises:
        UserError: Settings are wrong or do not fit together, or the directory
            holds another run.
        LockedError: Another live process works on the run.
        AllDivergedError: The loss of every replicate's dense network became
            nan. Other networks that diverge end only themselves and what
            depends on them; `RunDirectory.diverged` lists them.
    """
    options = RunOptions(
        preset=preset,
        verbose=verbose,
        workers=workers,
        data_dir=data_dir,
        deterministic=deterministic,
        reusable_runs=reusable_runs,
        checkpoint_steps=checkpoint_steps,
        shard=shard,
        strategy=strategy,
        cluster=cluster,
    )
    return run_prepared(options.preparer().prepare(config), run_dir, options)


def run_prepared(
    prepared: PreparedExperiment,
    run_dir: str | os.PathLike[str],
    options: RunOptions,
) -> RunDirectory | None:
    """Runs an experiment whose data, models and trainer are built.

    Args:
        prepared: The experiment.
        run_dir: A folder, or a bucket address.
        options: How it is executed.

    Returns:
        The run directory; None on a worker that is not the chief.

    Raises:
        UserError: Options do not fit together, or the directory holds another
            run.
        AllDivergedError: Every dense network diverged.
    """
    config, trainer, shard = prepared.config, prepared.trainer, options.shard
    looks = config.looks
    _require_combinable(config, options)
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    if not strategies.is_chief(options.strategy):
        outcome.require_trained(
            executors.run_worker(trainer, prepared.fingerprint)
        )
        return None
    replicates = shard.own(looks.first)
    steps = len(replicates) * prepared.steps_per_replicate
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(
            _create_executor(prepared, options, len(replicates))
        )
        directory = open_run(config, run_dir, prepared.fingerprint, options)
        progress = Progress(steps, options.verbose, looks.last)
        stack.callback(progress.close)
        stack.enter_context(
            directory.owned((shard.index, shard.count), progress.write)
        )
        if shard.count > 1:
            progress.write(shard.text(looks.last))
        scheduler = Scheduler(
            trainer,
            directory,
            prepared.rewind_step,
            progress,
            _steps(options.checkpoint_steps, trainer),
        )
        _run_replicates(prepared, replicates, scheduler, executor)
        if looks.is_sequential and not outcome.judge(directory).is_settled:
            more = range(looks.first, looks.last)
            progress.write(
                f"{looks.first} replicates do not decide: {len(more)} more."
            )
            progress.add_steps(len(more) * prepared.steps_per_replicate)
            _run_replicates(prepared, more, scheduler, executor)
        diverged = outcome.all_diverged(config, directory)
        if isinstance(executor, executors.MultiWorkerExecutor):
            executor.set_result(diverged)
    outcome.require_trained(diverged)
    return directory


def open_run(
    config: Config,
    run_dir: str | os.PathLike[str],
    fingerprint: Mapping[str, Any],
    options: RunOptions = RunOptions(),  # noqa: B008 - it is frozen
) -> RunDirectory:
    """Returns the directory of an experiment, new or begun earlier.

    Args:
        config: The settings.
        run_dir: A folder, or a bucket address.
        fingerprint: Everything that determines the results.
        options: How the run is executed.

    Raises:
        UserError: The directory holds another run, or cannot be written.
    """
    metadata = {
        "preset": options.preset,
        "digest": config.digest,
        "settings": dataclasses.asdict(config),
        "deterministic": options.deterministic or not devices.has_gpu(),
        "strategy": strategies.described(options.strategy),
        **provenance.versions(),
        "hardware": provenance.hardware(),
    }
    if run_directory.is_run(run_dir):
        begun = RunDirectory.open(run_dir).replicates
        config.looks.require_continues(begun, str(run_dir))
    return RunDirectory.open_or_create(
        run_dir,
        fingerprint,
        metadata,
        options.reusable_runs,
        config.replicates,
    )


def explain(
    config: Config,
    workers: int | None = None,
    data_dir: data.DataDir = None,
    shard: Shard = Shard(),  # noqa: B008 - it is frozen
    strategy: tf.distribute.Strategy | None = None,
    cluster: str | None = None,
) -> list[str]:
    """Returns how this machine would train the networks of an experiment.

    Args:
        config: The settings.
        workers: Number of processes, >= 1; None: the fastest number.
        data_dir: The folder of TensorFlow Datasets; None: its default.
        shard: The replicates that this process would train.
        strategy: The strategy to train with; None: no strategy.
        cluster: The Ray cluster to train on; None: this machine.

    Returns:
        Lines of text, one decision in each.
    """
    trainer = build_trainer(config, data_dir, strategy)
    replicates = len(shard.own(config.looks.first))
    networks = replicates * search_setup(config, 0).networks
    independent = independent_networks(config, replicates)
    return plan.plan(trainer, networks, independent, workers, cluster).lines()


def _require_combinable(config: Config, options: RunOptions) -> None:
    """Raises a UserError for options that exclude each other."""
    strategy, workers, looks = options.strategy, options.workers, config.looks
    if strategy is not None and (workers or 1) > 1:
        raise UserError(
            f"{workers} processes cannot share one strategy: leave out "
            "`workers`, or `strategy`."
        )
    if options.cluster is not None and (workers or strategy):
        raise UserError(
            "A cluster has a worker in each of its slots, each without a "
            "strategy: leave out `cluster`, or `workers` and `strategy`."
        )
    if options.shard.count == 1:
        return
    if strategies.has_workers(strategy):
        raise UserError(
            "Several workers train each network together, and cannot take a "
            "shard of their own: leave out `shard`, or `strategy`."
        )
    if looks.is_sequential:
        raise UserError(
            f"Shards do not wait for each other, and replicates={str(looks)!r} "
            f"has to: give a number of replicates, or leave out `shard`."
        )


def _create_executor(
    prepared: PreparedExperiment, options: RunOptions, replicates: int
) -> contextlib.AbstractContextManager[Executor]:
    config, trainer = prepared.config, prepared.trainer
    executor, workers = plan.choose_executor(
        trainer,
        replicates * prepared.steps_per_replicate,
        independent_networks(config, replicates),
        options.workers,
        options.cluster,
    )
    build = functools.partial(build_trainer, config, prepared.data_dir)
    return executors.create(
        trainer,
        executor,
        workers,
        build,
        prepared.fingerprint,
        options.cluster,
    )


def _run_replicates(
    prepared: PreparedExperiment,
    replicates: Sequence[int],
    scheduler: Scheduler,
    executor: Executor,
) -> None:
    def search(replicate: int) -> ReplicateSearch:
        return prepared.searches[replicate].replicate_search(
            scheduler, prepared.trainer, replicate
        )

    searches = [search(replicate) for replicate in replicates]
    if searches:
        # `rewind="auto"` may need dense networks of other shards.
        everyone = map(search, range(prepared.config.looks.last))
        scheduler.find_rewind_step(searches, executor, everyone)
        scheduler.run(searches, executor)


def _steps(lengths: Sequence[str], trainer: Trainer) -> list[int]:
    """Returns lengths of training as steps; `"auto"` is all candidates."""
    steps: set[int] = set()
    for length in lengths:
        if length == "auto":
            steps.update(stability.candidates(trainer.steps))
        else:
            steps.add(Duration(length).steps_at(trainer.steps_per_epoch))
    return sorted(steps)
