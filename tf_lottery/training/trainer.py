"""The trainer: networks are trained from any state to the end."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core import seeds
from tf_lottery.core.errors import UserError
from tf_lottery.data import Dataset, Split, augmentation
from tf_lottery.training import (
    batch_norm,
    compatibility,
    input_pipeline,
    plan,
    resume,
)
from tf_lottery.training.backends import compiled_steps, custom_step
from tf_lottery.training.backends.custom_step import (
    CustomStep,
    CustomStepBackend,
)
from tf_lottery.training.backends.data_parallel import DataParallelPrograms
from tf_lottery.training.backends.dense import DenseBackend, DensePrograms
from tf_lottery.training.backends.functional_model import FunctionalModel
from tf_lottery.training.backends.per_device import PerDeviceBackend
from tf_lottery.training.backends.sparse import SparseBackend
from tf_lottery.training.backends.stacking import Single
from tf_lottery.training.distribution import replica_context
from tf_lottery.training.input_pipeline import Batching, Buffer, Examples
from tf_lottery.training.job import Job
from tf_lottery.training.loop import Backend, TrainingLoop
from tf_lottery.training.objective import LOSS, Objective
from tf_lottery.training.recipe import Recipe
from tf_lottery.training.result import Outcome
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
        self._feed = input_pipeline.create(
            data.train,
            Batching(recipe.batch_size, recipe.shuffle, recipe.keeps_remainder),
        )
        compatibility.require_compatible(
            model, recipe, data, self.steps_per_epoch
        )
        augment = None
        if data.augment is not None:
            augment = functools.partial(
                augmentation.augment, augmentation=data.augment
            )
        self._own: CustomStep | None = None
        objective = None
        if custom_step.overridden_methods(model):
            self._own = CustomStep(model, recipe, kernels, augment, data.train)
            self._deciding = self._own.objective.deciding
        else:
            objective = Objective(model, recipe, self.sample(4))
            self._deciding = objective.deciding
        self._objective: Any = objective
        self._evaluated: Callable[[], Arrays] = dict
        self._optimizer = keras.optimizers.get(recipe.optimizer)
        self.network = FunctionalModel(
            model, recipe.optimizer, objective, kernels, recipe.auto_scale_loss
        )
        self._jit = recipe.jit_compile
        if self._jit == "auto":
            self._jit = compiled_steps.compiles_with_xla(model)
        self._programs = DensePrograms(self.network, augment, bool(self._jit))
        self._split: Any = None  # DataParallelPrograms, with a strategy
        if strategy is not None:
            compatibility.require_shardable(model, recipe, objective, strategy)
            self._split = self._split_programs(objective, augment)
        self._splits = {
            name: input_pipeline.evaluation_batches(
                split, self._evaluation_size(split)
            )
            for name in ("train", "validation", "test")
            if (split := getattr(data, name)) is not None
        }
        # Steps a call. A call on a CPU's convolutions shall take seconds.
        self._max_steps_per_execution = (
            100 if compiled_steps.compiles_with_xla(model) else 20
        )

    def _split_programs(
        self, objective: Any, augment: Any
    ) -> DataParallelPrograms:
        """Returns programs whose batches the strategy's replicas share."""
        strategy: Any = self.strategy
        recipe = self.recipe
        model = replica_context.synchronized_copy(self.model)
        if strategy.num_replicas_in_sync > 1:
            compatibility.require_mean_loss(
                self.model, recipe, objective, self.data.train
            )
        network = FunctionalModel(
            model,
            recipe.optimizer,
            Objective(model, recipe, self.sample(4)),
            tuple(self.network.masked),
            recipe.auto_scale_loss,
        )
        return DataParallelPrograms(network, augment, strategy, bool(self._jit))

    def sample(self, examples: int) -> Examples:
        """Returns the first training examples.

        Args:
            examples: How many; of a model with a batch size of its own, that.
        """
        count = compatibility.model_batch_size(self.model) or examples
        return input_pipeline.examples_of(self.data.train.rows(slice(0, count)))

    def _evaluation_size(self, split: Split) -> int:
        """Returns how many examples are evaluated at a time."""
        recipe = self.recipe
        if (
            self._own is None
            and self.network.objective.is_mean_of_examples
            and compatibility.model_batch_size(self.model) is None
        ):
            return input_pipeline.even_size(len(split))
        return recipe.validation_batch_size or recipe.batch_size

    @property
    def deciding(self) -> str:
        """The name of the metric that a verdict looks at."""
        return self._deciding

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training data."""
        return self._feed.steps_per_epoch

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations, an epoch at most."""
        return min(self.recipe.evaluate_every, self.steps_per_epoch)

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
        return bool(self._jit)

    @property
    def logged(self) -> list[str]:
        """The names in the logs of training, as Keras has them."""
        objective = self._own.objective if self._own else self._objective
        names = list(objective.results(objective.zeros()))
        if self.data.validation is not None:
            names += [f"val_{name}" for name in names]
        return names

    def weights_evaluated(self) -> Arrays:
        """Returns the weights of the network that progress is told about."""
        return self._evaluated()

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
    ) -> list[Outcome]:
        """Trains networks side by side, to the end of the recipe's length.

        A network trained beside others is the network trained alone, but for
        rounding. What does not fit into memory together is trained in turns.

        Args:
            jobs: The networks.
            progress: Called with the job's index, the step, and the latest
                figures: at the beginning, and after every evaluation.

        Returns:
            The record of each network, or `Diverged` if its loss became nan
            or infinite, which ends no other network.

        Raises:
            ValueError: A state does not obey its masks.
        """
        outcomes = dict(self.outcomes(jobs, progress))
        return [outcomes[i] for i in range(len(jobs))]

    def outcomes(
        self, jobs: Sequence[Job], progress: Progress | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        """Trains networks as `train` does, and tells at once which diverged.

        Args:
            jobs: The networks.
            progress: As `train` takes it.

        Yields:
            The job's index and what became of it, in the order in which that
            is known: a network that diverges before those that train on.

        Raises:
            ValueError: A state does not obey its masks.
        """
        for job in jobs:
            job.require_pruned_zero()
        kinds: dict[tuple[str | None, int, bool], dict[int, Job]] = {}
        for i, job in enumerate(jobs):
            # Beside one that begins, one that is under way would begin again.
            is_begun = resume.is_begun(job.folder, job.digest)
            kind = job.architecture, job.start.step, is_begun
            kinds.setdefault(kind, {})[i] = job
        for (architecture, *_), together in kinds.items():
            trainer = self._of(architecture)
            trainer._follow(next(iter(together.values())).start)
            yield from trainer._train_together(together, progress)

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
        self.network.update_constants(state)
        if self._split is not None:
            self._split.network.update_constants(state)

    def errors(
        self,
        weights: Arrays,
        splits: Sequence[str] = (),
        reestimate_batch_norm: bool = False,
    ) -> dict[str, float]:
        """Returns the fraction of examples that a network classifies wrong.

        Args:
            weights: Path to value of every variable of the model.
            splits: Names of splits. Empty: all there are.
            reestimate_batch_norm: Whether the moving statistics of BatchNorm
                are estimated anew first, on training data.

        Raises:
            ValueError: Accuracy is not among what is measured.
        """
        if self._deciding == LOSS:
            raise UserError(
                "Errors are 1 - accuracy, which is not measured: "
                'compile(..., metrics=["accuracy"]).'
            )
        if reestimate_batch_norm:
            batches = self._splits["train"]
            weights = batch_norm.reestimated(self.model, weights, batches)
        every = {
            path: np.ones(weights[path].shape, bool)
            for path in self.network.masked
        }
        state = State(0, weights, {})
        networks = self._dense_backend([state], [every], [0])
        return {
            name: 1 - result.metrics[self._deciding]
            for name in splits or self._splits
            for result in networks.evaluate(
                networks.device_state, self._splits[name]
            )
        }

    @property
    def has_custom_step(self) -> bool:
        """Whether the model's class defines its own training step."""
        return self._own is not None

    def stacking(self, networks: int) -> tuple[str, str]:
        """Returns how so many networks would lie side by side, and why so."""
        if self._own is not None:
            return "in turn", "its class says how it trains"
        found, reason = self._stacking(networks)
        return found.name, reason

    def _stacking(self, networks: int) -> tuple[Any, str]:
        sample = self.sample(self.recipe.batch_size)
        return self._programs.stacking(networks, sample)

    def _train_together(
        self, jobs: Mapping[int, Job], progress: Progress | None
    ) -> Iterator[tuple[int, Outcome]]:
        left = dict(jobs)
        try:
            names = list(jobs)
            stack = self._train_stack(list(jobs.values()), names, progress)
            for place, outcome in stack:
                del left[names[place]]
                yield names[place], outcome
            return
        except tf.errors.ResourceExhaustedError:
            if len(left) <= 1:
                raise
        half = len(left) // 2
        _log.warning(
            "%d networks do not fit into memory together: %d and %d in turn.",
            len(left),
            half,
            len(left) - half,
        )
        parts = list(left.items())
        yield from self._train_together(dict(parts[:half]), progress)
        yield from self._train_together(dict(parts[half:]), progress)

    def _train_stack(
        self,
        jobs: Sequence[Job],
        names: Sequence[int],
        progress: Progress | None,
    ) -> Iterator[tuple[int, Outcome]]:
        kept = resume.load_latest([(job.folder, job.digest) for job in jobs])
        states = [k.state for k in kept] or [job.start for job in jobs]
        networks = self._backend(jobs, states)
        often = (
            {"validation", "test"} if self.recipe.test_curve else {"validation"}
        )
        curves = [name for name in self._splits if name in often]
        course = TrainingLoop(
            networks, jobs, self._splits, curves, kept, self._deciding
        )
        tell = progress or (lambda *_: None)
        for name in names:
            tell(name, course.step, {})
        for window, stop in self._chunks(course.step, jobs):
            yield from course.advance(window, stop).items()
            if not course.alive:
                return
            if stop % self.evaluate_every == 0 or stop == self.steps:
                course.evaluate()
                for i in course.alive:
                    self._evaluated = functools.partial(course.weights, i)
                    tell(names[i], stop, course.logs[i].curve[-1])
            if stop < self.steps:
                course.save_if_due()
        yield from course.outcomes().items()

    def _backend(
        self,
        jobs: Sequence[Job],
        states: Sequence[State],
        on_one_device: bool = False,
    ) -> Backend:
        """Builds the backend that the plan names for these networks."""
        masks = [job.masks for job in jobs]
        keys = [job.augmentation_key for job in jobs]
        choice = plan.choose_backend(self, masks, on_one_device).backend
        if choice == plan.SPARSE_CPU:
            objective = self.network.objective
            return SparseBackend(
                self.model, self._optimizer, objective, states[0], masks[0]
            )
        if choice == plan.DATA_PARALLEL:
            return DenseBackend(self._split, Single(), states, masks, keys)
        if choice == plan.PER_DEVICE:
            return PerDeviceBackend(
                lambda some: self._backend(jobs[some], states[some], True),
                len(jobs),
                self._split.devices,
            )
        return self._dense_backend(states, masks, keys)

    def _dense_backend(
        self,
        states: Sequence[State],
        masks: Sequence[Mapping[str, np.ndarray]],
        keys: Sequence[int],
    ) -> Backend:
        if self._own is not None:
            return CustomStepBackend(self._own, states, masks, keys)
        stacking, _ = self._stacking(len(states))
        return DenseBackend(self._programs, stacking, states, masks, keys)

    def _chunks(
        self, step: int, jobs: Sequence[Job]
    ) -> Iterator[tuple[Buffer, int]]:
        """Yields how far to train next, from one point of interest to another.

        Where the points lie depends on no clock, or sums would differ.
        """
        every = (self.evaluate_every, self._max_steps_per_execution)
        captures = {step for job in jobs for step in job.capture}
        for window in self._feed.buffers([job.seed for job in jobs], step):
            while step < window.stop:
                stops = [window.stop, self.steps]
                stops += [step - step % n + n for n in every]
                stops += [c for c in captures if c > step]
                step = min(stops)
                yield window, step
                if step == self.steps:
                    return
