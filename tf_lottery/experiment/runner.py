"""Running an experiment: replicates of one search."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lottery import controls, data, masking, models
from tf_lottery.analysis import verdict
from tf_lottery.core import seeds
from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError
from tf_lottery.core.storage.leases import Leases
from tf_lottery.data import augmentation
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.optimizer import optimizer
from tf_lottery.experiment.shard import Shard
from tf_lottery.lottery import stability
from tf_lottery.runs import executors, provenance, run_directory
from tf_lottery.runs.network_graph import NetworkGraph, NetworkName
from tf_lottery.runs.progress import Progress
from tf_lottery.runs.run_directory import RunDirectory
from tf_lottery.runs.scheduler import Scheduler
from tf_lottery.ticket_search import TicketSearch
from tf_lottery.training import Recipe, Trainer, devices, plan
from tf_lottery.training.distribution import strategies


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
    leases: Leases | None = None,
    shard: Shard = Shard(),  # noqa: B008 - it is frozen
    strategy: tf.distribute.Strategy | None = None,
) -> RunDirectory | None:
    """Runs an experiment, or what of it is not done yet.

    Any number of processes may run the same one in the same directory, on
    any machines that see it: each network is trained by one of them, and each
    process returns when all are.

    Args:
        config: The settings.
        run_dir: Where it is kept: a folder, or an address in a bucket,
            `gs://bucket/folder`. A run there of the same settings goes on
            where it stopped; it may have grown by levels, replicates and
            controls.
        preset: The preset's name, for the records.
        verbose: Show progress.
        workers: In how many processes networks train side by side. None: as
            is fastest on this machine; on a GPU one, which trains stacks.
        data_dir: The folder of TensorFlow Datasets, as `data.load_dataset`
            takes it. Where the data lie does not determine the run; what they
            are does.
        deterministic: Have TensorFlow choose operations that give the same
            bytes every time, in this process from here on. On a CPU results
            are the same bytes without it.
        reusable_runs: Runs whose networks are trained in the same way, on the
            same data: what they have trained is taken over.
        checkpoint_steps: Lengths, as `rewind`, at which θ is kept for such runs
            to come.
        leases: Who trains what, of this run and its siblings. None: of this
            run alone.
        shard: Which replicates this process trains; the others are left to
            others, and not waited for.
        strategy: What to train with, as `TicketSearch` takes it. It does not
            determine the run.

    Returns:
        The run directory; None on a worker that is not the chief, for that
        one alone keeps the run.

    Raises:
        ValueError: Settings are wrong or do not fit together, or the directory
            holds another run.
        AllDivergedError: The loss of every replicate's dense network became
            nan. What else diverges ends itself and what depends on it:
            `RunDirectory.diverged` lists it.
    """
    searches, trainer, rewind = prepare(config, data_dir, strategy)
    if strategy is not None and (workers or 1) > 1:
        raise UserError(
            f"{workers} processes cannot share one strategy: leave out "
            "`workers`, or `strategy`."
        )
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if strategies.has_workers(strategy) and shard.count > 1:
        raise UserError(
            "Several workers train each network together, and cannot take a "
            "shard of their own: leave out `shard`, or `strategy`."
        )
    determines = _fingerprint(config, trainer.data.digest)
    if not strategies.is_chief(strategy):
        _require_trained(executors.run_worker(trainer, determines))
        return None
    looks = config.looks
    if looks.is_sequential and shard.count > 1:
        raise UserError(
            f"Shards do not wait for each other, and replicates={str(looks)!r} "
            f"has to: give a number of replicates, or leave out `shard`."
        )
    own = shard.own(looks.first)
    steps = len(own) * searches[0].networks * trainer.steps
    with contextlib.ExitStack() as stack:
        executor = stack.enter_context(
            executors.create(
                trainer,
                *plan.choose_executor(
                    trainer, steps, _independent(config, len(own)), workers
                ),
                functools.partial(build_trainer, config, data_dir),
                determines,
            )
        )
        directory = open_run(
            config,
            run_dir,
            preset,
            trainer.data.digest,
            deterministic,
            reusable_runs,
            leases,
            strategy,
        )
        progress = Progress(steps, verbose, looks.last)
        stack.callback(progress.close)
        if shard.count > 1:
            progress.write(shard.text(looks.last))
        captured = _steps(checkpoint_steps, trainer)
        scheduler = Scheduler(trainer, directory, rewind, progress, captured)

        def run(replicates: Sequence[int]) -> None:
            replicate_searches = [
                searches[r].replicate_search(scheduler, trainer, r)
                for r in replicates
            ]
            if replicate_searches:
                every = range(looks.last)
                order = (
                    searches[r].replicate_search(scheduler, trainer, r)
                    for r in every
                )
                scheduler.find_rewind_step(replicate_searches, executor, order)
                scheduler.run(replicate_searches, executor)

        run(own)
        if looks.is_sequential and not judged(directory).is_settled:
            more = range(looks.first, looks.last)
            progress.write(
                f"{looks.first} replicates do not decide: {len(more)} more."
            )
            progress.add_steps(len(more) * searches[0].networks * trainer.steps)
            run(more)
        diverged = _all_diverged(config, directory)
        if isinstance(executor, executors.MultiWorkerExecutor):
            executor.set_result(diverged)
    _require_trained(diverged)
    return directory


class AllDivergedError(UserError):
    """The dense network of every replicate diverged: nothing can be pruned."""


def _all_diverged(config: Config, directory: RunDirectory) -> str:
    """Returns how every dense network diverged; empty if one did not."""
    outcomes = {
        network.replicate: network.outcome
        for network in directory.diverged()
        if (network.level, network.variant) == (0, "ticket")
    }
    if not outcomes.keys() >= set(range(config.looks.last)):
        return ""
    if config.replicates == 1:
        return f"{outcomes[0]}"
    return (
        f"All {config.replicates} replicates' dense networks diverged. "
        f"{outcomes[0]}"
    )


def _require_trained(diverged: str) -> None:
    if diverged:
        raise AllDivergedError(diverged)


def open_run(
    config: Config,
    run_dir: str | os.PathLike[str],
    preset: str,
    data_digest: str,
    deterministic: bool = False,
    reusable_runs: Sequence[RunDirectory] = (),
    leases: Leases | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> RunDirectory:
    """Returns the directory of an experiment, new or begun earlier.

    Args:
        config: The settings.
        run_dir: As `run_experiment` takes it.
        preset: As `run_experiment` takes it.
        data_digest: What tells the data from others of the same name.
        deterministic: As `run_experiment` takes it.
        reusable_runs: As `run_experiment` takes it.
        leases: As `run_experiment` takes it.
        strategy: As `run_experiment` takes it.

    Raises:
        ValueError: The directory holds another run, or cannot be written.
    """
    metadata = {
        "preset": preset,
        "digest": config.digest,
        "settings": dataclasses.asdict(config),
        "deterministic": deterministic or not devices.has_gpu(),
        "strategy": strategies.described(strategy),
        **provenance.versions(),
        "hardware": provenance.hardware(),
    }
    determines = _fingerprint(config, data_digest)
    if run_directory.is_run(run_dir):
        begun = RunDirectory.open(run_dir).replicates
        config.looks.require_continues(begun, str(run_dir))
    return RunDirectory.open_or_create(
        run_dir, determines, metadata, reusable_runs, leases, config.replicates
    )


def judged(directory: RunDirectory) -> verdict.Judgment:
    """Returns the verdicts on a run, as it was planned.

    Args:
        directory: The run.
    """
    settings = directory.config["metadata"].get("settings", {})
    return verdict.judge(
        directory.records(),
        directory.replicates,
        directory.diverged(),
        settings.get("levels"),
    )


def _fingerprint(config: Config, data_digest: str) -> dict[str, Any]:
    """Returns what determines the results."""
    return {**config.fingerprint(), "data": data_digest}


def unfinished(config: Config, directory: RunDirectory) -> list[int]:
    """Returns the replicates of an experiment that lack trained networks.

    A network that diverged is none of these, nor is what depends on it.
    """
    variants = controls.variants(config.controls)
    graph = NetworkGraph(config.levels, variants, config.schedule)
    done: dict[int, set[NetworkName]] = {
        r: set() for r in range(config.looks.last)
    }
    for row in directory.rows():
        place = row["level"], row["variant"]
        done.setdefault(row["replicate"], set()).add(place)
    for network in directory.diverged():
        place = network.level, network.variant
        own = done.setdefault(network.replicate, set())
        own |= {place, *graph.dependents(*place)}
    return [r for r in range(config.looks.last) if graph.networks - done[r]]


def prepare(
    config: Config,
    data_dir: data.DataDir = None,
    strategy: tf.distribute.Strategy | None = None,
) -> tuple[list[TicketSearch], Trainer, int | None]:
    """Returns each replicate's search, their trainer, and the step to rewind.

    Whatever is wrong with the settings is found here, before anything is
    trained or written.

    Args:
        config: The settings.
        data_dir: As `run_experiment` takes it.
        strategy: As `run_experiment` takes it.

    Raises:
        ValueError: Settings are wrong or do not fit together.
    """
    searches = [_search(config, r, strategy) for r in range(config.looks.last)]
    trainer = build_trainer(config, data_dir, strategy)
    return searches, trainer, searches[0].rewind(trainer)


def _steps(lengths: Sequence[str], trainer: Trainer) -> list[int]:
    """Returns lengths of training as steps; of `"auto"` all candidates."""
    steps: set[int] = set()
    for length in lengths:
        if length == "auto":
            steps.update(stability.candidates(trainer.steps))
        else:
            steps.add(Duration(length).steps_at(trainer.steps_per_epoch))
    return sorted(steps)


def explain(
    config: Config,
    workers: int | None = None,
    data_dir: data.DataDir = None,
    shard: Shard = Shard(),  # noqa: B008 - it is frozen
    strategy: tf.distribute.Strategy | None = None,
) -> list[str]:
    """Returns how the networks of an experiment would be trained here.

    Args:
        config: The settings.
        workers: As `run_experiment` takes it.
        data_dir: As `run_experiment` takes it.
        shard: As `run_experiment` takes it.
        strategy: As `run_experiment` takes it.
    """
    trainer = build_trainer(config, data_dir, strategy)
    replicates = len(shard.own(config.looks.first))
    networks = replicates * _search(config, 0).networks
    independent = _independent(config, replicates)
    return plan.plan(trainer, networks, independent, workers).lines()


def build_trainer(
    config: Config,
    data_dir: data.DataDir = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Trainer:
    """Returns what trains the networks of an experiment."""
    dataset = dataclasses.replace(
        data.load_dataset(config.dataset, data_dir),
        augment=augmentation.get(config.augmentation),
    )
    recipe = Recipe(
        optimizer=optimizer(config, len(dataset.train) // config.batch_size),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=("accuracy",),
        batch_size=config.batch_size,
        length=Duration(config.length),
        evaluate_every=config.evaluate_every,
    )
    return _search(config, 0, strategy).trainer(recipe, dataset)


def _independent(config: Config, replicates: int) -> int:
    """Returns how many networks never wait for each other, at least 1."""
    controls_ = len(controls.variants(config.controls)) if config.levels else 0
    return max(1, replicates) * (1 + controls_)


def _search(
    config: Config,
    replicate: int,
    strategy: tf.distribute.Strategy | None = None,
) -> TicketSearch:
    seed = seeds.integer(config.seed, "replicate", replicate)
    return TicketSearch(
        _model(config, seed),
        levels=config.levels,
        rate=config.rate,
        rates=config.rates,
        criterion=config.criterion,
        allocation=config.allocation,
        schedule=config.schedule,
        rewind=config.rewind,
        rewind_mode=config.rewind_mode,
        seed=seed,
        controls=config.controls,
        initial_weights=config.initial_weights or None,
        strategy=strategy,
    )


def _model(config: Config, seed: int) -> keras.Model:
    model = models.build_model(config.model, seed=seed, **config.model_options)
    if config.weight_decay < 0:
        raise UserError(
            f"`weight_decay` must be 0 or more; got {config.weight_decay}."
        )
    if config.weight_decay:
        penalty = keras.regularizers.L2(config.weight_decay / 2)
        for kernel in masking.kernels(model).values():
            # The layer's is looked at when it is built or saved.
            kernel.layer.kernel_regularizer = penalty
            kernel.variable.regularizer = penalty
    return model
