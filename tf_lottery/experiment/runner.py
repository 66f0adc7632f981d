"""This module knows how an experiment runs: replicates of one search."""

import dataclasses
import os

import keras

from tf_lottery import controls, data, identity, models, seeds
from tf_lottery.duration import Duration
from tf_lottery.experiment.config import Config
from tf_lottery.progress import Progress
from tf_lottery.store import RunDirectory
from tf_lottery.ticket_search import TicketSearch
from tf_lottery.training import Recipe


def run_experiment(
    config: Config,
    run_dir: str | os.PathLike[str],
    preset: str = "",
    verbose: bool = True,
) -> RunDirectory:
    """Runs an experiment, or what of it is not done yet.

    Args:
        config: The settings.
        run_dir: Where it is kept. A run there of the same settings goes on
            where it stopped; it may have grown by levels, replicates and
            controls.
        preset: The preset's name, for the records.
        verbose: Show progress.

    Returns:
        The run directory.

    Raises:
        ValueError: Settings are wrong or do not fit together, the directory
            holds another run, or a loss became nan.
    """
    for name in config.controls:
        controls.find(name)
    if config.replicates < 1:
        raise ValueError(
            f"`replicates` must be 1 or more; got {config.replicates}."
        )
    recipe = Recipe(
        optimizer=_optimizer(config),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=("accuracy",),
        batch_size=config.batch_size,
        length=Duration(config.length),
        evaluate_every=config.evaluate_every,
    )
    searches = [_search(config, r) for r in range(config.replicates)]
    dataset = data.load_dataset(config.dataset)
    about = {
        "preset": preset,
        "digest": config.digest,
        "settings": dataclasses.asdict(config),
        **identity.versions(),
    }
    directory = RunDirectory(run_dir, config.identity(), about)
    networks = 1 + config.levels * (1 + len(config.controls))
    steps = recipe.length.steps_at(len(dataset.train) // config.batch_size)
    progress = Progress(config.replicates * networks * steps, verbose)
    try:
        for replicate, search in enumerate(searches):
            search.search(recipe, dataset, directory, replicate, progress)
    finally:
        progress.close()
    return directory


def _search(config: Config, replicate: int) -> TicketSearch:
    seed = seeds.integer(config.seed, "replicate", replicate)
    return TicketSearch(
        models.build_model(config.model, seed=seed),
        levels=config.levels,
        rate=config.rate,
        rates=config.rates,
        criterion=config.criterion,
        allocation=config.allocation,
        schedule=config.schedule,
        rewind=config.rewind,
        seed=seed,
        controls=config.controls,
        theta_0=config.theta_0 or None,
    )


def _optimizer(config: Config) -> keras.optimizers.Optimizer:
    if config.learning_rate <= 0:
        raise ValueError(
            f"`learning_rate` must be above 0; got {config.learning_rate}."
        )
    try:
        optimizer = keras.optimizers.get(config.optimizer)
    except ValueError:
        raise ValueError(
            f"Unknown optimizer {config.optimizer!r}. Known: those of "
            "keras.optimizers, such as 'adam', 'sgd', 'adamw'."
        ) from None
    optimizer.learning_rate = config.learning_rate
    return optimizer
