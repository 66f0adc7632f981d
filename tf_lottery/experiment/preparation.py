"""Data, models and trainer of an experiment, built and checked."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_lottery import controls, data, masking, models
from tf_lottery.core import seeds
from tf_lottery.core.duration import Duration
from tf_lottery.core.errors import UserError
from tf_lottery.data import augmentation
from tf_lottery.experiment.config import Config
from tf_lottery.experiment.optimizer import optimizer
from tf_lottery.ticket_search.search_setup import SearchSetup
from tf_lottery.ticket_search.settings import SearchSettings
from tf_lottery.training import Recipe, Trainer


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedExperiment:
    """An experiment that is checked and ready to train.

    Attributes:
        config: The settings.
        searches: The search of each replicate.
        trainer: Trains the networks of all replicates.
        rewind_step: The step that tickets restart from; None for `"auto"`.
        data_dir: The folder of TensorFlow Datasets, or None.
    """

    config: Config
    searches: Sequence[SearchSetup]
    trainer: Trainer
    rewind_step: int | None
    data_dir: data.DataDir = None

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that determines the results."""
        return {**self.config.fingerprint(), "data": self.trainer.data.digest}

    @property
    def steps_per_replicate(self) -> int:
        """Training steps of all networks of one replicate."""
        return self.searches[0].networks * self.trainer.steps


class Preparer:
    """Prepares experiments, and builds what they share only once.

    Experiments that train in the same way get the same trainer, which holds
    the data on the device and the compiled steps. Only the latest data set and
    trainer are kept, because several may not fit into memory.

    Args:
        data_dir: The folder of TensorFlow Datasets; None: its default.
        strategy: The strategy to train with; None: no strategy.
    """

    def __init__(
        self,
        data_dir: data.DataDir = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._data_dir, self._strategy = data_dir, strategy
        self._dataset: tuple[str, data.Dataset] | None = None
        self._trainer: tuple[str, Trainer] | None = None

    def prepare(self, config: Config) -> PreparedExperiment:
        """Builds and checks an experiment, before anything is written.

        Args:
            config: The settings.

        Raises:
            UserError: Settings are wrong or do not fit together.
        """
        searches = [
            search_setup(config, replicate)
            for replicate in range(config.looks.last)
        ]
        trainer = self.trainer(config)
        step = searches[0].rewind_step(trainer)
        return PreparedExperiment(
            config, searches, trainer, step, self._data_dir
        )

    def trainer(self, config: Config) -> Trainer:
        """Returns the trainer of an experiment's networks.

        Args:
            config: The settings.
        """
        key = config.training_digest
        if self._trainer is None or self._trainer[0] != key:
            self._trainer = None  # Its data must leave memory first.
            self._trainer = key, self._build_trainer(config)
        return self._trainer[1]

    def _build_trainer(self, config: Config) -> Trainer:
        dataset = dataclasses.replace(
            self._load_dataset(config.dataset),
            augment=augmentation.get(config.augmentation),
        )
        recipe = Recipe(
            optimizer=optimizer(
                config, len(dataset.train) // config.batch_size
            ),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=("accuracy",),
            batch_size=config.batch_size,
            length=Duration(config.length),
            evaluate_every=config.evaluate_every,
        )
        # Not the model of a search, whose weights are a replicate's θ0.
        model = _build_model(config, _seed(config, 0))
        kernels = tuple(masking.kernels(model))
        return Trainer(model, recipe, dataset, kernels, self._strategy)

    def _load_dataset(self, name: str) -> data.Dataset:
        if self._dataset is None or self._dataset[0] != name:
            self._dataset = None
            self._dataset = name, data.load_dataset(name, self._data_dir)
        return self._dataset[1]


def prepare(
    config: Config,
    data_dir: data.DataDir = None,
    strategy: tf.distribute.Strategy | None = None,
) -> PreparedExperiment:
    """Builds and checks one experiment, before anything is written.

    Args:
        config: The settings.
        data_dir: The folder of TensorFlow Datasets; None: its default.
        strategy: The strategy to train with; None: no strategy.

    Raises:
        UserError: Settings are wrong or do not fit together.
    """
    return Preparer(data_dir, strategy).prepare(config)


def build_trainer(
    config: Config,
    data_dir: data.DataDir = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Trainer:
    """Returns the trainer of one experiment's networks.

    Args:
        config: The settings.
        data_dir: The folder of TensorFlow Datasets; None: its default.
        strategy: The strategy to train with; None: no strategy.
    """
    return Preparer(data_dir, strategy).trainer(config)


def search_setup(config: Config, replicate: int) -> SearchSetup:
    """Returns the search of one replicate.

    Args:
        config: The settings.
        replicate: Number of the replicate, >= 0.

    Raises:
        UserError: Settings are wrong or do not fit together.
    """
    seed = _seed(config, replicate)
    shared = vars(SearchSettings()).keys() & vars(config).keys()
    settings = {
        **{name: getattr(config, name) for name in shared},
        "seed": seed,
        "replicates": 1,
        "initial_weights": config.initial_weights or None,
    }
    model = _build_model(config, seed)
    return SearchSetup.create(model, SearchSettings(**settings))


def independent_networks(config: Config, replicates: int) -> int:
    """Returns how many networks never wait for each other, at least 1.

    Args:
        config: The settings.
        replicates: Number of replicates to train, >= 0.
    """
    variants = len(controls.variants(config.controls)) if config.levels else 0
    return max(1, replicates) * (1 + variants)


def _seed(config: Config, replicate: int) -> int:
    return seeds.integer(config.seed, "replicate", replicate)


def _build_model(config: Config, seed: int) -> keras.Model:
    model = models.build_model(config.model, seed=seed, **config.model_options)
    if config.weight_decay < 0:
        raise UserError(
            f"`weight_decay` must be 0 or more; got {config.weight_decay}."
        )
    if config.weight_decay:
        penalty = keras.regularizers.L2(config.weight_decay / 2)
        for kernel in masking.kernels(model).values():
            # Keras reads the layer's when the layer is built or saved.
            kernel.layer.kernel_regularizer = penalty
            kernel.variable.regularizer = penalty
    return model
