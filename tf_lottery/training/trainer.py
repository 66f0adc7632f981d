"""This module knows how one network is trained from any state to the end."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking, seeds
from tf_lottery.data import Dataset
from tf_lottery.masking.optimizer import bind, slots_by_name
from tf_lottery.training import fit, measure, order, program
from tf_lottery.training.log import Log
from tf_lottery.training.recipe import Recipe
from tf_lottery.training.run import Run
from tf_lottery.training.state import State, values

Progress = Callable[[int, Mapping[str, float]], None]

_EVALUATION_BATCH = 2_500


class Trainer:
    """Trains one architecture, again and again, as one compiled program.

    It takes masks as values and knows nothing of levels. What it computes is
    a function of the state it starts from, the masks, the recipe, the data and
    the seed: batches depend on (seed, epoch), dropout on (seed, layer, step).

    Args:
        model: A built Keras model. It is the workplace: its weights change.
        recipe: How networks are trained.
        data: What they are trained on.
        seed: Seed of data order and of the layers' own randomness, >= 0.
        kernels: Paths of the kernels that carry masks; pruned weights of
            these stay at exactly zero. None, and no mask is ever applied.

    Raises:
        ValueError: Recipe, model and data do not fit together.
    """

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        data: Dataset,
        seed: int = 0,
        kernels: tuple[str, ...] = (),
    ) -> None:
        self.model, self.recipe, self.data, self.seed = (
            model,
            recipe,
            data,
            seed,
        )
        self._variables = masking.variables_by_path(model)
        self._seed_layers()
        loss = measure.resolve_loss(recipe.loss)
        self._measures = measure.resolve(loss, recipe.metrics)
        fit.require_fit(model, recipe, data, loss)
        self.optimizer = _copy(recipe.optimizer)
        self.optimizer.build(model.trainable_variables)
        self._slots = slots_by_name(self.optimizer, self._variables)
        self._fresh_slots = values(self._slots)
        self._masks = self._bind_masks(kernels)
        self._train = program.training_steps(model, self.optimizer, loss)
        self._evaluate = program.evaluation(
            model, self._measures, _EVALUATION_BATCH
        )
        self._splits = {
            name: (tf.constant(split.x), tf.constant(split.y))
            for name in ("train", "validation", "test")
            if (split := getattr(data, name)) is not None
        }

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training data."""
        return len(self.data.train) // self.recipe.batch_size

    @property
    def steps(self) -> int:
        """The step at which training ends."""
        return self.recipe.length.steps_at(self.steps_per_epoch)

    @property
    def state(self) -> State:
        """The state of model and optimizer as they stand, as values."""
        slots = values(self._slots)
        step = int(slots["iteration"])
        return State(step, values(self._variables), slots if step else {})

    @state.setter
    def state(self, state: State) -> None:
        for variables, arrays in (
            (self._variables, state.weights),
            (self._slots, state.slots or self._fresh_slots),
        ):
            for name, variable in variables.items():
                variable.assign(arrays[name])

    def train(
        self,
        start: State,
        masks: Mapping[str, np.ndarray],
        capture: int | None = None,
        progress: Progress | None = None,
    ) -> Run:
        """Trains from a state to the end of the recipe's length.

        Args:
            start: Where training starts; pruned weights are zero already.
            masks: Kernel path to bool array shaped as the kernel, one for each
                kernel that carries masks.
            capture: A step whose state goes into the record.
            progress: Called with the step and the latest figures after every
                evaluation.

        Returns:
            The record of the run.

        Raises:
            ValueError: The state does not obey the masks, or the loss became
                nan or infinite.
        """
        self._begin(start, masks)
        began = time.perf_counter()
        log = Log()
        captured = start if capture == start.step else None
        for step, loss in self._stretches(start.step, capture):
            if step == capture:
                captured = self.state
            if step % self.recipe.evaluate_every == 0 or step == self.steps:
                log.add(step, loss, self._figures())
                if progress:
                    progress(step, log.curve[-1])
        figures, _ = self._evaluated("train")
        metrics = {
            "steps": self.steps,
            **log.summary(),
            **{f"train_{name}": value for name, value in figures.items()},
            "seconds": time.perf_counter() - began,
        }
        return Run(
            values(self._variables),
            metrics,
            tuple(log.curve),
            log.correct,
            captured,
        )

    def _begin(self, start: State, masks: Mapping[str, np.ndarray]) -> None:
        for path, variable in self._masks.items():
            kernel = start.weights[path]
            if (kernel[~masks[path]] != 0).any():
                raise ValueError(
                    f"Kernel {path!r} holds weights where its mask prunes. "
                    "Rewind first: rewinding.rewind(state, masks)."
                )
            variable.assign(masks[path])
        self.state = start

    def _stretches(
        self, step: int, capture: int | None
    ) -> Iterator[tuple[int, float]]:
        """Trains from one point of interest to the next; yields step, loss."""
        x, y = self._splits["train"]
        per_epoch, every = self.steps_per_epoch, self.recipe.evaluate_every
        epoch, batches = -1, None
        while step < self.steps:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                batches = tf.constant(
                    order.batches(
                        self.seed, epoch, len(x), self.recipe.batch_size
                    )
                )
            first = epoch * per_epoch
            stops = [first + per_epoch, step - step % every + every, self.steps]
            if capture is not None and capture > step:
                stops.append(capture)
            stop = min(stops)
            loss = float(
                self._train(
                    x,
                    y,
                    batches,
                    tf.constant(step - first),
                    tf.constant(stop - first),
                )
            )
            if not math.isfinite(loss):
                raise ValueError(
                    f"The training loss became {loss} between steps {step} "
                    f"and {stop}. Lower the learning rate, or clip gradients."
                )
            step = stop
            yield step, loss

    def _figures(self) -> dict[str, tuple[dict[str, float], np.ndarray]]:
        return {
            name: self._evaluated(name)
            for name in ("validation", "test")
            if name in self._splits
        }

    def _evaluated(self, split: str) -> tuple[dict[str, float], np.ndarray]:
        for metric in self._measures.metrics:
            metric.reset_state()
        losses, correct = self._evaluate(*self._splits[split])
        right = correct.numpy()
        figures = {"loss": float(losses.numpy().mean(dtype=np.float64))}
        if self._measures.has_accuracy:
            figures["accuracy"] = float(right.mean())
        for metric in self._measures.metrics:
            figures[metric.name] = float(metric.result())
        return figures, right

    def _bind_masks(self, kernels: tuple[str, ...]) -> dict[str, tf.Variable]:
        owned = {path: self._variables[path] for path in kernels}
        bound = bind(
            self.optimizer,
            [(v, np.ones(v.shape, bool)) for v in owned.values()],
        )
        return {path: bound[id(v)] for path, v in owned.items()}

    def _seed_layers(self) -> None:
        """Gives dropout and its like a stream that the seed determines."""
        for path, variable in self._variables.items():
            if variable.name == "seed_generator_state":
                seed = seeds.integer(self.seed, "layer", path)
                variable.assign(np.array([seed, 0], "uint32"))


def _copy(optimizer: Any) -> keras.optimizers.Optimizer:
    """Returns a fresh optimizer of the same configuration."""
    found = keras.optimizers.get(optimizer)
    return type(found).from_config(found.get_config())
