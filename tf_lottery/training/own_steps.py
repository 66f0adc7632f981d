"""This module knows networks that train as their own class says.

A `train_step`, `test_step` or `compute_loss` of the user's reads and writes
variables, and is no function of values. So the model is copied once, and the
networks take turns in the copy's variables.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.data import Split
from tf_lottery.masking.optimizer import bind, slots_by_name
from tf_lottery.masks import Masks
from tf_lottery.training.arrangement import Single
from tf_lottery.training.dense import DenseNetworks, DensePrograms
from tf_lottery.training.feed import Batch, Window
from tf_lottery.training.measure import Figures
from tf_lottery.training.network import Augment, scaled
from tf_lottery.training.recipe import Recipe
from tf_lottery.training.state import State, assign, values

_METHODS = ("train_step", "test_step", "compute_loss")
_OTHERWISE = "or mask the model, and prune it between fits: mask_model."


def own_methods(model: keras.Model) -> tuple[str, ...]:
    """Returns which of Keras' steps a model's class has its own of."""
    return tuple(
        name
        for name in _METHODS
        if getattr(type(model), name) is not getattr(keras.Model, name)
    )


def needs_loss(model: keras.Model) -> bool:
    """Returns whether it trains, or is evaluated, on the loss of `compile`."""
    own = own_methods(model)
    has_both = "train_step" in own and "test_step" in own
    return "compute_loss" not in own and not has_both


class OwnSteps:
    """A model whose class says how it trains, and its compiled steps.

    The copy's layers are masked, so that all that a step looks at, gradients
    too, is the sparse network's; and so is its optimizer, for the averages
    that it keeps of pruned weights. Metrics are reset before every step: the
    `"loss"` that a step reports is its own, whether a mean over steps or not.

    Args:
        model: A built model, which stays as it is.
        recipe: How networks are trained.
        kernels: Paths of the kernels that carry masks.
        augment: What happens to training inputs, or None.
        train: Examples to try a step on.

    Raises:
        ValueError: The model cannot be copied, or masked, or its step is no
            function of its variables and those of `self.optimizer`.
    """

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        kernels: Sequence[str],
        augment: Augment | None,
        train: Split,
    ) -> None:
        self._name = type(model).__qualname__
        self._augment = augment
        own = own_methods(model)
        self.has_loss = "test_step" in own or "compute_loss" in own
        self.model = (
            masking.mask_model(model, list(kernels))
            if kernels
            else masking.copied(model)
        )
        self._variables = masking.variables_by_path(self.model)
        self._compile(recipe)
        self._optimizer = self.model.optimizer
        self._optimizer.build(self.model.trainable_variables)
        self._slots = slots_by_name(self._optimizer, self._variables)
        self._fresh = values(self._slots)
        batch = (a[: recipe.batch_size] for a in (train.x, train.y))
        self._require_function_of_state(*map(tf.constant, batch))
        jit = {"jit_compile": self.model.jit_compile, "autograph": False}
        self._steps = tf.function(self._take_steps, **jit)
        self._test = tf.function(self._test_loss, reduce_retracing=True, **jit)

    def _compile(self, recipe: Recipe) -> None:
        found = scaled(recipe.optimizer, self.model)
        fresh = type(found).from_config(found.get_config())
        # Metrics keep what they count: these are not the user's own.
        metrics = [
            type(m).from_config(m.get_config())
            if isinstance(m, keras.metrics.Metric)
            else m
            for m in recipe.metrics
        ]
        try:
            self.model.compile(
                optimizer=fresh, loss=recipe.loss, metrics=metrics
            )
        except TypeError as error:
            raise ValueError(
                f"{self._name}.compile does not take optimizer, loss and "
                f"metrics ({error}): let it, {_OTHERWISE}"
            ) from None
        others = [
            name
            for name, value in vars(self.model).items()
            if isinstance(value, keras.optimizers.Optimizer)
            and value is not self.model.optimizer
        ]
        if others or self.model.optimizer is None:
            raise ValueError(
                f"{self._name} trains with an optimizer of its own "
                f"({', '.join(others) or 'compile sets none'}), which the "
                "search cannot rewind: train with self.optimizer alone, "
                f"{_OTHERWISE}"
            )

    def _require_function_of_state(self, x: tf.Tensor, y: tf.Tensor) -> None:
        """Raises unless a step, taken twice from one state, is one step."""
        methods = ("train_step", "test_step")[: 1 + self.has_loss]
        steps = {name: getattr(self.model, name) for name in methods}
        start = self._state(1)
        seen = set()
        for _ in range(2):
            self._assign(start)
            self.model.reset_metrics()
            with tf.device("CPU:0"):  # where sums have one order
                losses = [
                    float(self._loss_of(name, step((x, y))))
                    for name, step in steps.items()
                ]
            seen.add((self._state(1).digest, repr(losses)))
        if len(seen) > 1:
            raise ValueError(
                f"Two steps of {self._name} from one state on one batch "
                "differ, so that no ticket of it could be found again. Draw "
                "at random with a keras.random.SeedGenerator that the model "
                "holds, and keep what steps remember in weights (add_weight), "
                f"{_OTHERWISE}"
            )

    def _loss_of(self, method: str, logs: Any) -> tf.Tensor:
        if not isinstance(logs, Mapping) or "loss" not in logs:
            raise ValueError(
                f"{self._name}.{method} reports no 'loss', by which training "
                "is watched: return {'loss': loss}, and what else you like."
            )
        return tf.reduce_mean(tf.cast(logs["loss"], tf.float32))

    def _take_steps(
        self,
        key: tf.Tensor,
        order: tf.Tensor,
        x: tf.Tensor,
        y: tf.Tensor,
        first: tf.Tensor,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> tf.Tensor:
        """Takes steps as `program.training_steps` does; sums their losses."""

        def body(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            batch = order[i]
            inputs = tf.gather(x, batch)
            if self._augment is not None:
                inputs = self._augment(inputs, tf.stack([key, first + i]))
            self.model.reset_metrics()
            logs = self.model.train_step((inputs, tf.gather(y, batch)))
            return i + 1, total + self._loss_of("train_step", logs)

        _, total = tf.while_loop(
            lambda i, _: i < stop,
            body,
            (start, tf.constant(0.0)),
            parallel_iterations=1,
        )
        return total

    def _test_loss(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        self.model.reset_metrics()
        return self._loss_of("test_step", self.model.test_step((x, y)))

    def run(
        self,
        state: State,
        masks: Mapping[str, np.ndarray],
        key: int,
        order: np.ndarray,
        window: Window,
        start: int,
        stop: int,
    ) -> tuple[State, float]:
        """Returns the state after rows of an order, and the sum of losses."""
        self._load(state, masks)
        total = self._steps(
            tf.constant(key, tf.int32),
            tf.constant(order, tf.int32),
            window.x,
            window.y,
            *map(tf.constant, (window.first, start, stop)),
        )
        return self._state(window.first + stop), float(total)

    def loss(
        self,
        state: State,
        masks: Mapping[str, np.ndarray],
        batches: Iterable[Batch],
    ) -> tuple[float, int]:
        """Returns the mean loss of `test_step` on a split, and its size."""
        self._load(state, masks)
        losses, sizes = [], []
        for batch in batches:
            size = int(np.sum(batch.counts))
            # Those that an earlier batch had stand in front.
            losses.append(float(self._test(batch.x[-size:], batch.y[-size:])))
            sizes.append(size)
        return float(np.average(losses, weights=sizes)), sum(sizes)

    def _load(self, state: State, masks: Mapping[str, np.ndarray]) -> None:
        if masks:
            masking.set_masks(self.model, Masks(masks))
        pairs = [(self._variables[path], mask) for path, mask in masks.items()]
        bind(self._optimizer, pairs)
        self._assign(state)

    def _assign(self, state: State) -> None:
        assign(self._variables, state.weights)
        assign(self._slots, state.slots or self._fresh)

    def _state(self, step: int) -> State:
        return State(step, values(self._variables), values(self._slots))


class OwnNetworks:
    """Networks in training whose class says how, one after the other.

    Their loss on a split is that of `test_step`, if the class has its own, or
    a `compute_loss` of its own, which Keras' calls; else that of `compile` on
    the outputs, as for every other model. Accuracy and further metrics are
    those of `compile` on the outputs.

    Args:
        own: The model and its steps.
        programs: The programs that evaluate outputs.
        states: Where each network starts.
        masks: Of each, kernel path to bool array.
        keys: Of each, the key of its augmentation.
    """

    def __init__(
        self,
        own: OwnSteps,
        programs: DensePrograms,
        states: Sequence[State],
        masks: Sequence[Mapping[str, np.ndarray]],
        keys: Sequence[int],
    ) -> None:
        self._own, self._programs = own, programs
        self.values: Any = self.packed(states)
        self._masks, self._keys = masks, keys

    def run(self, window: Window, start: int, stop: int) -> np.ndarray:
        """Takes steps; returns each network's sum of losses, `[networks]`."""
        each = zip(
            self.values, self._masks, self._keys, window.orders, strict=True
        )
        done = [self._own.run(*one, window, start, stop) for one in each]
        self.values = tuple(state for state, _ in done)
        return np.array([total for _, total in done])

    def evaluate(self, values: Any, batches: Iterable[Batch]) -> list[Figures]:
        """Returns each network's figures on a split."""
        return [
            self._evaluated(*one, batches)
            for one in zip(values, self._masks, strict=True)
        ]

    def _evaluated(
        self,
        state: State,
        masks: Mapping[str, np.ndarray],
        batches: Iterable[Batch],
    ) -> Figures:
        measures = self._programs.measures
        loss: dict[str, float] = {}
        if self._own.has_loss:
            loss["loss"], size = self._own.loss(state, masks, batches)
            if not (measures.has_accuracy or measures.metrics):
                return Figures(loss, np.zeros(size, bool))
        dense = DenseNetworks(self._programs, Single(), [state], [masks], [0])
        (found,) = dense.evaluate(dense.values, batches)
        return Figures({**found.figures, **loss}, found.correct)

    def better(self, improved: Sequence[bool], before: Any) -> Any:
        """Returns `values` of the networks that improved, else those before."""
        old = self.values if before is None else before
        pairs = zip(self.values, old, improved, strict=True)
        return tuple(n if is_better else o for n, o, is_better in pairs)

    def states(self, values: Any, step: int) -> list[State]:
        """Returns values as states."""
        return [
            dataclasses.replace(s, step=step, slots=s.slots if step else {})
            for s in values
        ]

    def packed(self, states: Sequence[State]) -> Any:
        """Returns states as values: they are."""
        return tuple(states)
