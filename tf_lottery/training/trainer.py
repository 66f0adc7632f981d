"""This module knows how networks are trained from any state to the end."""

import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking, seeds
from tf_lottery.data import Dataset, augmentation
from tf_lottery.training import (
    feed,
    fit,
    interim,
    measure,
    own_steps,
    program,
    replicas,
    sparse,
    statistics,
)
from tf_lottery.training.arrangement import Single
from tf_lottery.training.course import Course, Networks
from tf_lottery.training.dense import DenseNetworks, DensePrograms
from tf_lottery.training.feed import Window
from tf_lottery.training.job import Job
from tf_lottery.training.network import Network
from tf_lottery.training.own_steps import OwnNetworks, OwnSteps
from tf_lottery.training.recipe import Recipe
from tf_lottery.training.run import Run
from tf_lottery.training.sparse import SparseNetwork
from tf_lottery.training.split import SplitPrograms
from tf_lottery.training.spread import SpreadNetworks
from tf_lottery.training.state import Arrays, State, values

Progress = Callable[[int, int, Mapping[str, float]], None]

_log = logging.getLogger(__name__)


class Trainer:
    """Trains one architecture, again and again, as one compiled program.

    It takes masks as values and knows nothing of levels. What it computes is
    a function of the states it starts from, the masks, the recipe, the data
    and the seeds: batches depend on (seed, epoch), augmentation on (seed,
    step), dropout on (seed, layer, step).

    Args:
        model: A built Keras model. It says what is trained; its weights only
            change where `state` is assigned to.
        recipe: How networks are trained.
        data: What they are trained on.
        kernels: Paths of the kernels that carry masks; pruned weights of
            these stay at exactly zero. None, and no mask is ever applied.
        strategy: Over whose replicas training is spread. None: where
            TensorFlow puts it. One network is trained by all replicas, each
            with its part of every batch, and is the network of one device but
            for rounding; of several each is trained by one replica.

    Raises:
        ValueError: Recipe, model, data and strategy do not fit together.
    """

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        data: Dataset,
        kernels: Sequence[str] = (),
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self.model, self.recipe, self.data = model, recipe, data
        self.strategy = strategy
        self._other: tuple[str, Trainer] | None = None
        loss = None
        if recipe.loss is not None or own_steps.needs_loss(model):
            loss = measure.resolve_loss(recipe.loss)
        measures = measure.resolve(loss, recipe.metrics)
        fit.require_fit(model, recipe, data, loss)
        self._loss, self._measures = loss, measures
        self._optimizer = keras.optimizers.get(recipe.optimizer)
        self.network = Network(model, recipe.optimizer, loss, kernels)
        augment = None
        if data.augment is not None:
            augment = functools.partial(
                augmentation.augment, augmentation=data.augment
            )
        self._programs = DensePrograms(self.network, measures, augment)
        self._split: SplitPrograms | None = None
        if strategy is not None:
            fit.require_parts(model, recipe, loss, strategy)
            network = Network(
                replicas.prepared(model), recipe.optimizer, loss, kernels
            )
            if strategy.num_replicas_in_sync > 1:
                fit.require_no_added_loss(network, data.train)
                fit.require_mean(network, data.train, recipe.batch_size)
            self._split = SplitPrograms(network, measures, augment, strategy)
        self._feed = feed.feed(data.train, recipe.batch_size)
        self._splits = {
            name: feed.evaluation_batches(split)
            for name in ("train", "validation", "test")
            if (split := getattr(data, name)) is not None
        }
        self._own: OwnSteps | None = None
        if own_steps.own_methods(model):
            self._own = OwnSteps(model, recipe, kernels, augment, data.train)
        # Steps a call. A call on a CPU's convolutions shall take seconds.
        self._longest = 100 if program.compiles_with_xla(model) else 20

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training data."""
        return self._feed.steps_per_epoch

    @property
    def steps(self) -> int:
        """The step at which training ends."""
        return self.recipe.length.steps_at(self.steps_per_epoch)

    @property
    def state(self) -> State:
        """The state of model and optimizer as they stand, as values."""
        return self.network.state

    @state.setter
    def state(self, state: State) -> None:
        self.network.state = state

    @property
    def compiles_with_xla(self) -> bool:
        """Whether XLA compiles the programs."""
        return program.compiles_with_xla(self.model)

    def initial(self, model: keras.Model, seed: int) -> State:
        """Returns a model's weights as a state at step 0.

        Args:
            model: Of the architecture that is trained here.
            seed: Seed of the layers' own randomness, such as dropout's.
        """
        variables = masking.variables_by_path(model)
        weights = values(variables)
        for path, variable in variables.items():
            if variable.name == "seed_generator_state":
                key = seeds.integer(seed, "layer", path)
                weights[path] = np.array([key, 0], "uint32")
        return State(0, weights, {})

    def train(
        self, jobs: Sequence[Job], progress: Progress | None = None
    ) -> list[Run]:
        """Trains networks side by side, to the end of the recipe's length.

        A network trained beside others is the network trained alone, but for
        rounding. What does not fit into memory together is trained in turns.

        Args:
            jobs: The networks.
            progress: Called with the job's index, the step, and the latest
                figures: at the beginning, and after every evaluation.

        Returns:
            The record of each run.

        Raises:
            ValueError: A state does not obey its masks, or a loss became nan
                or infinite.
        """
        for job in jobs:
            job.require_obedience()
        kinds: dict[tuple[str | None, int], dict[int, Job]] = {}
        for i, job in enumerate(jobs):
            kind = job.architecture, job.start.step
            kinds.setdefault(kind, {})[i] = job
        runs: dict[int, Run] = {}
        for (architecture, _), together in kinds.items():
            trainer = self._of(architecture)
            trainer._follow(next(iter(together.values())).start)
            runs |= trainer._train_together(together, progress)
        return [runs[i] for i in range(len(jobs))]

    def _of(self, architecture: str | None) -> "Trainer":
        """Returns what trains a model in the same way; the last one is kept."""
        if architecture is None:
            return self
        if self._other is None or self._other[0] != architecture:
            self._other = None  # Its data make room.
            model = masking.rebuilt(architecture)
            kernels = tuple(self.network.masked)
            trainer = Trainer(
                model, self.recipe, self.data, kernels, self.strategy
            )
            self._other = architecture, trainer
        return self._other[1]

    def _follow(self, state: State) -> None:
        """Makes constants of the compiled programs those of a state."""
        self.network.follow(state)
        if self._split is not None:
            self._split.network.follow(state)

    def errors(
        self,
        weights: Arrays,
        splits: Sequence[str] = (),
        anew: bool = False,
    ) -> dict[str, float]:
        """Returns the fraction of examples that a network classifies wrong.

        Args:
            weights: Path to value of every variable of the model.
            splits: Names of splits. Empty: all there are.
            anew: Whether the moving statistics of BatchNorm are estimated
                anew first, on training data.

        Raises:
            ValueError: Accuracy is not among what is measured.
        """
        if not self._measures.has_accuracy:
            raise ValueError(
                "Errors are 1 - accuracy, which is not measured: "
                'compile(..., metrics=["accuracy"]).'
            )
        if anew:
            batches = self._splits["train"]
            weights = statistics.reestimated(self.model, weights, batches)
        every = {
            path: np.ones(weights[path].shape, bool)
            for path in self.network.masked
        }
        state = State(0, weights, {})
        networks = self._side_by_side([state], [every], [0])
        return {
            name: 1 - float(figures.correct.mean())
            for name in splits or self._splits
            for figures in networks.evaluate(
                networks.values, self._splits[name]
            )
        }

    @property
    def most_side_by_side(self) -> int | None:
        """How many networks are worth training at once, or None for any."""
        if self._split is not None and not self._split.trains_apart:
            return 1
        if tf.config.list_logical_devices("GPU"):
            return None
        return 1 if self._split is None else len(self._split.devices)

    def arrangement(self, networks: int) -> tuple[str, str]:
        """Returns how so many networks would lie side by side, and why so."""
        if self._own is not None:
            return "in turn", "its class says how it trains"
        found, reason = self._arrangement(networks)
        return found.name, reason

    def _arrangement(self, networks: int) -> tuple[Any, str]:
        train, size = self.data.train, self.recipe.batch_size
        specs = [
            tf.TensorSpec([size, *array.shape[1:]], array.dtype)
            for array in (train.x, train.y)
        ]
        return self._programs.arrangement(networks, *specs)

    def _train_together(
        self, jobs: Mapping[int, Job], progress: Progress | None
    ) -> dict[int, Run]:
        try:
            runs = self._train_stack(list(jobs.values()), [*jobs], progress)
            return dict(zip(jobs, runs, strict=True))
        except tf.errors.ResourceExhaustedError:
            if len(jobs) == 1:
                raise
        half = len(jobs) // 2
        _log.warning(
            "%d networks do not fit into memory together: %d and %d in turn.",
            len(jobs),
            half,
            len(jobs) - half,
        )
        parts = list(jobs.items())
        first = self._train_together(dict(parts[:half]), progress)
        return first | self._train_together(dict(parts[half:]), progress)

    def _train_stack(
        self,
        jobs: Sequence[Job],
        names: Sequence[int],
        progress: Progress | None,
    ) -> list[Run]:
        kept = interim.found([(job.folder, job.digest) for job in jobs])
        states = [k.state for k in kept] or [job.start for job in jobs]
        networks = self._networks(jobs, states)
        often = (
            {"validation", "test"} if self.recipe.test_curve else {"validation"}
        )
        curves = [name for name in self._splits if name in often]
        course = Course(networks, jobs, self._splits, curves, kept)
        tell = progress or (lambda *_: None)
        for name in names:
            tell(name, course.step, {})
        for window, stop in self._stretches(course.step, jobs):
            began = course.step
            losses = course.advance(window, stop)
            _require_finite(losses, began, stop)
            if stop % self.recipe.evaluate_every == 0 or stop == self.steps:
                course.evaluate()
                for name, log in zip(names, course.logs, strict=True):
                    tell(name, stop, log.curve[-1])
            if stop < self.steps:
                course.save_if_due()
        return course.runs()

    def _networks(
        self, jobs: Sequence[Job], states: Sequence[State]
    ) -> Networks:
        if self._split is None:
            return self._on_one_device(jobs, states)
        if len(jobs) == 1:
            return DenseNetworks(
                self._split,
                Single(),
                states,
                [jobs[0].masks],
                [jobs[0].augmentation_key],
            )
        return SpreadNetworks(
            lambda some: self._on_one_device(jobs[some], states[some]),
            len(jobs),
            self._split.devices,
        )

    def _on_one_device(
        self, jobs: Sequence[Job], states: Sequence[State]
    ) -> Networks:
        if len(jobs) == 1 and self.why_dense(jobs[0].masks) is None:
            return SparseNetwork(
                self.model,
                self._optimizer,
                self._measures,
                states[0],
                jobs[0].masks,
            )
        masks = [job.masks for job in jobs]
        keys = [job.augmentation_key for job in jobs]
        return self._side_by_side(states, masks, keys)

    def _side_by_side(
        self,
        states: Sequence[State],
        masks: Sequence[Mapping[str, np.ndarray]],
        keys: Sequence[int],
    ) -> Networks:
        if self._own is not None:
            return OwnNetworks(self._own, self._programs, states, masks, keys)
        arrangement, _ = self._arrangement(len(states))
        return DenseNetworks(self._programs, arrangement, states, masks, keys)

    def why_dense(self, masks: Mapping[str, np.ndarray]) -> str | None:
        """Returns why a network is not trained on its survivors alone."""
        if self._own is not None:
            return "its class says how it trains"
        if tf.config.list_logical_devices("GPU"):
            return "a GPU multiplies densely"
        if self.strategy is not None:
            return "the devices of a strategy multiply densely"
        return sparse.refusal(
            self.model,
            self._loss,
            self._optimizer,
            self._measures,
            self.data,
            masks,
        )

    def _stretches(
        self, step: int, jobs: Sequence[Job]
    ) -> Iterator[tuple[Window, int]]:
        """Yields how far to train next, from one point of interest to another.

        Where the points lie depends on no clock, or sums would differ.
        """
        every = (self.recipe.evaluate_every, self._longest)
        captures = {step for job in jobs for step in job.capture}
        for window in self._feed.windows([job.seed for job in jobs], step):
            while step < window.stop:
                stops = [window.stop, self.steps]
                stops += [step - step % n + n for n in every]
                stops += [c for c in captures if c > step]
                step = min(stops)
                yield window, step
                if step == self.steps:
                    return


def _require_finite(losses: np.ndarray, start: int, stop: int) -> None:
    for loss in losses:
        if not math.isfinite(loss):
            raise ValueError(
                f"The training loss became {loss} between steps {start} "
                f"and {stop}. Lower the learning rate, or clip gradients."
            )
