"""The trainer: trains networks from any state to the end of the recipe."""

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
    """Trains networks of one architecture with one compiled program.

    Masks are values that it receives; it knows nothing of levels. A result
    is a function of the starting state, the masks, the recipe, the data and
    the seeds: batches depend on (seed, epoch), augmentation on (seed, step),
    dropout on (seed, layer, step).

    Args:
        model: A built Keras model. It defines the architecture; its weights
            change only when `state` is assigned.
        recipe: Loss, optimizer, batch size and length of training.
        data: Examples for training, validation and test.
        kernels: Paths of the kernels that carry masks; their pruned weights
            stay at exactly zero. Empty: no mask is applied.
        strategy: Strategy whose replicas train; None: TensorFlow's default
            device. All replicas train one network together, each with its
            shard of every batch; the result differs from one device only by
            rounding. Of several networks, each replica trains its own.

    Raises:
        UserError: Recipe, model, data and strategy do not fit together.
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
        self._rebuilt: tuple[str, Trainer] | None = None
        self._pipeline = input_pipeline.create(
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
        self._custom_step: CustomStep | None = None
        objective = None
        if custom_step.overridden_methods(model):
            self._custom_step = CustomStep(
                model, recipe, kernels, augment, data.train
            )
            self._deciding = self._custom_step.objective.deciding
        else:
            objective = Objective(model, recipe, self.sample(4))
            self._deciding = objective.deciding
        self._objective: Any = objective
        self._evaluated_weights: Callable[[], Arrays] = dict
        self._optimizer = keras.optimizers.get(recipe.optimizer)
        self.network = FunctionalModel(
            model, recipe.optimizer, objective, kernels, recipe.auto_scale_loss
        )
        self._jit = recipe.jit_compile
        if self._jit == "auto":
            self._jit = compiled_steps.compiles_with_xla(model)
        self._dense_programs = DensePrograms(
            self.network, augment, bool(self._jit)
        )
        self._data_parallel: Any = None  # DataParallelPrograms, with a strategy
        if strategy is not None:
            compatibility.require_shardable(model, recipe, objective, strategy)
            self._data_parallel = self._split_programs(objective, augment)
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
        """Returns programs that split each batch over the replicas."""
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
            examples: How many; a model with a fixed batch size takes that.
        """
        count = compatibility.model_batch_size(self.model) or examples
        return input_pipeline.examples_of(self.data.train.rows(slice(0, count)))

    def _evaluation_size(self, split: Split) -> int:
        """Returns the batch size of evaluation on a split."""
        recipe = self.recipe
        if (
            self._custom_step is None
            and self.network.objective.is_mean_of_examples
            and compatibility.model_batch_size(self.model) is None
        ):
            return input_pipeline.even_size(len(split))
        return recipe.validation_batch_size or recipe.batch_size

    @property
    def deciding(self) -> str:
        """Name of the metric that the verdict compares."""
        return self._deciding

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in one epoch."""
        return self._pipeline.steps_per_epoch

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations, at most one epoch."""
        return min(self.recipe.evaluate_every, self.steps_per_epoch)

    @property
    def steps(self) -> int:
        """The step at which training ends."""
        return self.recipe.length.steps_at(self.steps_per_epoch)

    @property
    def state(self) -> State:
        """Current state of model and optimizer, as NumPy arrays."""
        return self.network.state

    @state.setter
    def state(self, state: State) -> None:
        self.network.state = state

    @property
    def compiles_with_xla(self) -> bool:
        """Whether XLA compiles the training steps."""
        return bool(self._jit)

    @property
    def logged(self) -> list[str]:
        """Names of the metrics in the logs of training, as in Keras."""
        objective = (
            self._custom_step.objective
            if self._custom_step
            else self._objective
        )
        names = list(objective.results(objective.zeros()))
        if self.data.validation is not None:
            names += [f"val_{name}" for name in names]
        return names

    def weights_evaluated(self) -> Arrays:
        """Returns the weights of the network that was evaluated last."""
        return self._evaluated_weights()

    def initial(self, model: keras.Model, seed: int) -> State:
        """Returns a model's weights as the state of step 0.

        Args:
            model: A model of the trainer's architecture.
            seed: Seed of the random layers, such as dropout, >= 0.
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
        """Trains networks together, to the end of the recipe's length.

        A network trained with others differs from the network trained alone
        only by rounding. Networks that do not fit into memory together are
        trained one part after another.

        Args:
            jobs: One job per network.
            progress: Called with the job's index, the step, and the latest
                metrics, at the start and after every evaluation.

        Returns:
            For each job a `TrainingResult`, or `Diverged` if its loss became
            nan or infinite; the other networks train on.

        Raises:
            ValueError: A state has nonzero weights where its mask prunes.
        """
        outcomes = dict(self.outcomes(jobs, progress))
        return [outcomes[i] for i in range(len(jobs))]

    def outcomes(
        self, jobs: Sequence[Job], progress: Progress | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        """Trains networks as `train` does, and yields each outcome at once.

        Args:
            jobs: One job per network.
            progress: Called with the job's index, the step, and the latest
                metrics, at the start and after every evaluation.

        Yields:
            The job's index and its outcome, as soon as it is known: networks
            that diverge come before those that train on.

        Raises:
            ValueError: A state has nonzero weights where its mask prunes.
        """
        for job in jobs:
            job.require_pruned_zero()
        kinds: dict[tuple[str | None, int, bool], dict[int, Job]] = {}
        for i, job in enumerate(jobs):
            # In a stack with new networks, a resumed one would start again.
            is_begun = resume.is_begun(job.folder, job.digest)
            kind = job.architecture, job.start.step, is_begun
            kinds.setdefault(kind, {})[i] = job
        for (architecture, *_), together in kinds.items():
            trainer = self._trainer_for(architecture)
            trainer._update_constants(next(iter(together.values())).start)
            yield from trainer._train_together(together, progress)

    def _trainer_for(self, architecture: str | None) -> "Trainer":
        """Returns the trainer of another architecture; caches the last one."""
        if architecture is None:
            return self
        if self._rebuilt is None or self._rebuilt[0] != architecture:
            self._rebuilt = None  # frees the memory of its data
            model = masking.rebuilt(architecture)
            kernels = tuple(self.network.masked)
            trainer = Trainer(
                model, self.recipe, self.data, kernels, self.strategy
            )
            self._rebuilt = architecture, trainer
        return self._rebuilt[1]

    def _update_constants(self, state: State) -> None:
        """Sets the constants of the compiled programs to those of a state."""
        self.network.update_constants(state)
        if self._data_parallel is not None:
            self._data_parallel.network.update_constants(state)

    def errors(
        self,
        weights: Arrays,
        splits: Sequence[str] = (),
        reestimate_batch_norm: bool = False,
    ) -> dict[str, float]:
        """Returns the fraction of examples that a network classifies wrong.

        Args:
            weights: Variable path to array, for every variable of the model.
            splits: Names of splits; empty: all.
            reestimate_batch_norm: Whether to estimate the moving statistics
                of BatchNorm on training data first.

        Raises:
            UserError: Accuracy is not among the metrics.
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
        return self._custom_step is not None

    def stacking(self, networks: int) -> tuple[str, str]:
        """Returns how several networks would share one program, and why.

        Args:
            networks: How many, >= 1.
        """
        if self._custom_step is not None:
            return "in turn", "the model has its own train_step"
        found, reason = self._stacking(networks)
        return found.name, reason

    def _stacking(self, networks: int) -> tuple[Any, str]:
        sample = self.sample(self.recipe.batch_size)
        return self._dense_programs.stacking(networks, sample)

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
        indices: Sequence[int],
        progress: Progress | None,
    ) -> Iterator[tuple[int, Outcome]]:
        checkpoints = resume.load_latest(
            [(job.folder, job.digest) for job in jobs]
        )
        states = [c.state for c in checkpoints] or [job.start for job in jobs]
        backend = self._backend(jobs, states)
        evaluated = (
            {"validation", "test"} if self.recipe.test_curve else {"validation"}
        )
        curves = [name for name in self._splits if name in evaluated]
        loop = TrainingLoop(
            backend, jobs, self._splits, curves, checkpoints, self._deciding
        )
        report = progress or (lambda *_: None)
        for index in indices:
            report(index, loop.step, {})
        for buffer, stop in self._chunks(loop.step, jobs):
            yield from loop.advance(buffer, stop).items()
            if not loop.alive:
                return
            if stop % self.evaluate_every == 0 or stop == self.steps:
                loop.evaluate()
                for i in loop.alive:
                    self._evaluated_weights = functools.partial(loop.weights, i)
                    report(indices[i], stop, loop.logs[i].curve[-1])
            if stop < self.steps:
                loop.save_if_due()
        outcomes = loop.outcomes()
        # Not kept until the next networks train: it is most of the memory.
        self._evaluated_weights = dict
        del loop, backend
        yield from outcomes.items()

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
            return DenseBackend(
                self._data_parallel, Single(), states, masks, keys
            )
        if choice == plan.PER_DEVICE:
            return PerDeviceBackend(
                lambda some: self._backend(jobs[some], states[some], True),
                len(jobs),
                self._data_parallel.devices,
            )
        return self._dense_backend(states, masks, keys)

    def _dense_backend(
        self,
        states: Sequence[State],
        masks: Sequence[Mapping[str, np.ndarray]],
        keys: Sequence[int],
    ) -> Backend:
        if self._custom_step is not None:
            return CustomStepBackend(self._custom_step, states, masks, keys)
        stacking, _ = self._stacking(len(states))
        return DenseBackend(self._dense_programs, stacking, states, masks, keys)

    def _chunks(
        self, step: int, jobs: Sequence[Job]
    ) -> Iterator[tuple[Buffer, int]]:
        """Yields each buffer of examples and the step to train to with it.

        A chunk ends where the buffer, an evaluation, a captured state or the
        training ends. Chunks never depend on time, which would change sums.
        """
        intervals = (self.evaluate_every, self._max_steps_per_execution)
        captured = {step for job in jobs for step in job.capture}
        for buffer in self._pipeline.buffers([job.seed for job in jobs], step):
            while step < buffer.stop:
                stops = [buffer.stop, self.steps]
                stops += [step - step % n + n for n in intervals]
                stops += [c for c in captured if c > step]
                step = min(stops)
                yield buffer, step
                if step == self.steps:
                    return
