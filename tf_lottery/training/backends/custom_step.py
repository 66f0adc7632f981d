"""Training with a model's custom `train_step`, `test_step` or `compute_loss`.

Such a method reads and writes variables; it is not a function of values. So
the model is copied once, and the networks take turns in the copy's variables.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.core.masks import Masks
from tf_lottery.data import Split
from tf_lottery.masking.masked_optimizer import bind, slots_by_name
from tf_lottery.training.backends.functional_model import (
    Augment,
    with_loss_scaling,
)
from tf_lottery.training.input_pipeline import (
    Batch,
    Buffer,
    Examples,
    examples_of,
    gather,
)
from tf_lottery.training.objective import (
    LOSS,
    EvalResult,
    Objective,
    adds_losses,
    as_decisions,
    called,
    mode,
    number,
)
from tf_lottery.training.recipe import Recipe
from tf_lottery.training.state import State, assign, values

_OVERRIDABLE = ("train_step", "test_step", "compute_loss", "compute_metrics")
_ALTERNATIVE = "or mask the model, and prune it between fits: mask_model."


def overridden_methods(model: keras.Model) -> tuple[str, ...]:
    """Returns the names of Keras' step methods that a model's class overrides.

    Args:
        model: A Keras model.
    """
    return tuple(
        name
        for name in _OVERRIDABLE
        if getattr(type(model), name) is not getattr(keras.Model, name)
    )


def needs_loss(model: keras.Model) -> bool:
    """Returns whether training or evaluation uses the loss of `compile`.

    Args:
        model: A Keras model.
    """
    overridden = overridden_methods(model)
    has_both = "train_step" in overridden and "test_step" in overridden
    return "compute_loss" not in overridden and not has_both


class CustomStep:
    """A copy of a model with custom steps, and those steps compiled.

    The layers of the copy are masked, so a step sees the sparse network and
    its gradients. Its optimizer is masked too, because it may keep moving
    averages of pruned weights. Logs are those of Keras' `fit` and `evaluate`.

    Args:
        model: A built model; it is not changed.
        recipe: How networks are trained.
        kernels: Paths of the kernels that carry masks.
        augment: Augmentation of training inputs, or None.
        train: Training examples; one batch of them is used to test the step.

    Raises:
        UserError: The model cannot be copied or masked, or its step is not a
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
        self.model = (
            masking.mask_model(model, list(kernels))
            if kernels
            else masking.clone_model(model)
        )
        self._variables = masking.variables_by_path(self.model)
        self._compile(recipe)
        self._optimizer = self.model.optimizer
        self._optimizer.build(self.model.trainable_variables)
        self._slots = slots_by_name(self._optimizer, self._variables)
        self._initial_slots = values(self._slots)
        sample = examples_of(train.rows(slice(0, recipe.batch_size)))
        if (
            recipe.loss is None
            and needs_loss(model)
            and not adds_losses(self.model, called(self.model, sample.x)[1])
        ):
            raise UserError(
                f"A loss is needed, because {self._name} does not override "
                "`compute_loss`: compile(optimizer=..., loss=...)."
            )
        self._require_function_of_state(_packed(sample))
        self.objective = Objective(self.model, recipe, sample, needs_loss=False)
        jit = {"jit_compile": self.model.jit_compile, "autograph": False}
        self._steps = tf.function(self._take_steps, **jit)
        self._test = tf.function(self._test_step, reduce_retracing=True, **jit)
        self._decide = tf.function(
            self._decisions, reduce_retracing=True, autograph=False
        )

    def _compile(self, recipe: Recipe) -> None:
        optimizer = with_loss_scaling(recipe.optimizer, self.model)
        # Optimizer and metrics have state, so the user's objects are copied.
        optimizer = type(optimizer).from_config(optimizer.get_config())
        try:
            self.model.compile(
                optimizer=optimizer,
                loss=recipe.loss,
                metrics=_copy_metrics(recipe.metrics),
                **_compile_options(recipe),
            )
        except TypeError as error:
            raise UserError(
                f"{self._name}.compile does not take optimizer, loss and "
                f"metrics ({error}): add these parameters, {_ALTERNATIVE}"
            ) from None
        others = [
            name
            for name, value in vars(self.model).items()
            if isinstance(value, keras.optimizers.Optimizer)
            and value is not self.model.optimizer
        ]
        if others or self.model.optimizer is None:
            raise UserError(
                f"{self._name} does not train with self.optimizer alone "
                f"({', '.join(others) or 'compile sets none'}), and the "
                "search can rewind no other: use self.optimizer, "
                f"{_ALTERNATIVE}"
            )

    def _require_function_of_state(self, batch: Any) -> None:
        """Raises if two steps from one state on one batch differ."""
        start = self._state(1)
        seen = set()
        for _ in range(2):
            self._assign(start)
            self.model.reset_metrics()
            with tf.device("CPU:0"):  # GPUs may sum in another order
                losses = [
                    float(self._loss_of(name, getattr(self.model, name)(batch)))
                    for name in ("train_step", "test_step")
                ]
            seen.add((self._state(1).digest, repr(losses)))
        self.model.reset_metrics()
        if len(seen) > 1:
            raise UserError(
                f"Two steps of {self._name} from one state on one batch "
                "differ, so no training could be repeated. Draw random "
                "numbers with a keras.random.SeedGenerator that the model "
                "holds, keep what steps remember in weights (add_weight), "
                f"{_ALTERNATIVE}"
            )

    def _loss_of(self, method: str, logs: Any) -> tf.Tensor:
        if not isinstance(logs, Mapping) or "loss" not in logs:
            raise UserError(
                f"{self._name}.{method} reports no 'loss', which the search "
                "needs: return {'loss': loss} and any other logs."
            )
        return tf.reduce_mean(tf.cast(logs["loss"], tf.float32))

    def _take_steps(
        self,
        key: tf.Tensor,
        order: tf.Tensor,
        examples: Examples,
        first: tf.Tensor,
        start: tf.Tensor,
        stop: tf.Tensor,
    ) -> Any:
        """Takes training steps; returns the logs of the last one."""

        def step(i: tf.Tensor) -> Any:
            batch = gather(examples, order[i])
            if self._augment is not None:
                seed = tf.stack([key, first + i])
                batch = batch._replace(x=self._augment(batch.x, seed))
            logs = self.model.train_step(_packed(batch))
            self._loss_of("train_step", logs)
            return logs

        def body(i: tf.Tensor) -> tf.Tensor:
            step(i)
            return i + 1

        last = tf.while_loop(
            lambda i: i < stop - 1, body, (start,), parallel_iterations=1
        )
        with tf.control_dependencies(last):
            return step(stop - 1)

    def _test_step(self, examples: Examples) -> Any:
        logs = self.model.test_step(_packed(examples))
        self._loss_of("test_step", logs)
        return logs

    def _decisions(self, examples: Examples) -> tf.Tensor:
        outputs = self.model(examples.x, **mode(self.model, training=False))
        return self.objective.per_example(examples, outputs)

    def zeros(self) -> list[np.ndarray]:
        """Returns the metrics variables before any example."""
        self.model.reset_metrics()
        return self._metric_totals()

    def _metric_totals(self) -> list[np.ndarray]:
        return [np.array(v.numpy()) for v in self.model.metrics_variables]

    def run(
        self,
        state: State,
        masks: Mapping[str, np.ndarray],
        totals: Sequence[np.ndarray],
        key: int,
        order: np.ndarray,
        buffer: Buffer,
        start: int,
        stop: int,
    ) -> tuple[State, list[np.ndarray], dict[str, Any]]:
        """Trains one network on some batches of a buffer.

        Args:
            state: The network before the steps.
            masks: Kernel path to bool array of the kernel's shape.
            totals: Values of the metrics variables before the steps.
            key: Key of its augmentation, int32.
            order: The examples of each batch, int32 `[steps, batch]`.
            buffer: The examples.
            start: Index of the first batch in `order`.
            stop: Index after the last batch.

        Returns:
            State, metric totals and the logs of the last step.
        """
        self._load(state, masks)
        pairs = zip(self.model.metrics_variables, totals, strict=True)
        for variable, total in pairs:
            variable.assign(total)
        logs = self._steps(
            tf.constant(key, tf.int32),
            tf.constant(order, tf.int32),
            buffer.examples,
            *map(tf.constant, (buffer.first, start, stop)),
        )
        after = self._state(buffer.first + stop)
        return after, self._metric_totals(), _floats(logs)

    def evaluate(
        self,
        state: State,
        masks: Mapping[str, np.ndarray],
        batches: Iterable[Batch],
        per_example: bool,
    ) -> EvalResult:
        """Returns what `test_step` reports on a split.

        Args:
            state: The network.
            masks: Kernel path to bool array of the kernel's shape.
            batches: All batches of the split.
            per_example: Whether to also return the deciding metric of each
                single example.
        """
        self._load(state, masks)
        self.model.reset_metrics()
        logs: Any = {}
        for batch in batches:
            logs = self._test(batch.examples)
        metrics = _floats(logs)
        deciding = self.objective.deciding
        if deciding != LOSS and (per_example or deciding not in metrics):
            values = np.concatenate(
                [self._decide(batch.examples).numpy() for batch in batches]
            )
            # A custom `test_step` may leave out metrics of `compile`.
            metrics.setdefault(deciding, float(values.mean()))
            return EvalResult(metrics, as_decisions(values))
        if not per_example:
            return EvalResult(metrics)
        losses = []
        for batch in batches:  # a custom loss may be defined by batch only
            self.model.reset_metrics()
            losses.append(_floats(self._test(batch.examples))[LOSS])
        return EvalResult(metrics, np.array(losses, np.float32))

    def _load(self, state: State, masks: Mapping[str, np.ndarray]) -> None:
        if masks:
            masking.set_masks(self.model, Masks(masks))
        pairs = [(self._variables[path], mask) for path, mask in masks.items()]
        bind(self._optimizer, pairs)
        self._assign(state)

    def _assign(self, state: State) -> None:
        assign(self._variables, state.weights)
        assign(self._slots, state.slots or self._initial_slots)
        masking.derive(self.model)

    def _state(self, step: int) -> State:
        return State(step, values(self._variables), values(self._slots))


def _packed(examples: Examples) -> Any:
    """Returns a batch in the form that Keras passes to `train_step`."""
    return keras.utils.pack_x_y_sample_weight(*examples)


def _floats(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns logs as numbers, with nested logs flattened as Keras does."""
    flat: dict[str, Any] = {}
    for name, value in logs.items():
        if isinstance(value, Mapping):
            flat |= _floats(value)
        else:
            flat[name] = number(value)
    return flat


def _copy_metrics(metrics: Any) -> Any:
    def one(metric: Any) -> Any:
        if isinstance(metric, keras.metrics.Metric):
            return type(metric).from_config(metric.get_config())
        return metric

    return keras.tree.map_structure(one, metrics)


def _compile_options(recipe: Recipe) -> dict[str, Any]:
    """Returns options that were set; a custom `compile` may lack the others."""
    options = {
        "loss_weights": recipe.loss_weights,
        "weighted_metrics": _copy_metrics(recipe.weighted_metrics),
        "auto_scale_loss": None if recipe.auto_scale_loss else False,
    }
    return {name: value for name, value in options.items() if value is not None}


class CustomStepBackend:
    """Trains networks with custom steps, one after the other.

    Args:
        custom: The model and its compiled steps.
        states: Start of each network.
        masks: Per network, kernel path to bool array of the kernel's shape.
        keys: Augmentation key of each network, int32.
    """

    def __init__(
        self,
        custom: CustomStep,
        states: Sequence[State],
        masks: Sequence[Mapping[str, np.ndarray]],
        keys: Sequence[int],
    ) -> None:
        self._custom = custom
        self.device_state: Any = self.pack_states(states)
        self._masks, self._keys = masks, keys
        self._logs: list[dict[str, Any]] = []
        self._totals: list[Any] = []
        self.set_metric_totals(None)

    def run(self, buffer: Buffer, start: int, stop: int) -> np.ndarray:
        """Takes steps; returns each network's reported loss, `[networks]`."""
        each = zip(
            self.device_state,
            self._masks,
            self._totals,
            self._keys,
            buffer.orders,
            strict=True,
        )
        results = [self._custom.run(*one, buffer, start, stop) for one in each]
        self.device_state = tuple(state for state, _, _ in results)
        self._totals = [totals for _, totals, _ in results]
        self._logs = [logs for *_, logs in results]
        return np.array([np.mean(logs[LOSS]) for logs in self._logs])

    def metric_totals(self) -> list[list[np.ndarray]]:
        """Returns, per network, the values of Keras' metrics variables."""
        return self._totals

    def set_metric_totals(self, totals: Sequence[Sequence[Any]] | None) -> None:
        """Sets what `metric_totals` returned earlier; None resets metrics."""
        zeros = self._custom.zeros()
        self._totals = list(totals or [zeros] * len(self.device_state))

    def training_metrics(self) -> list[dict[str, Any]]:
        """Returns, per network, the logs of its last step."""
        return self._logs

    def evaluate(
        self,
        device_state: Any,
        batches: Iterable[Batch],
        per_example: bool = False,
    ) -> list[EvalResult]:
        """Returns, per network, its loss and metrics on a split."""
        return [
            self._custom.evaluate(state, masks, batches, per_example)
            for state, masks in zip(device_state, self._masks, strict=True)
        ]

    def keep_best(self, improved: Sequence[bool], best: Any) -> Any:
        """Returns current states where improved, else the best so far."""
        old = self.device_state if best is None else best
        pairs = zip(self.device_state, old, improved, strict=True)
        return tuple(n if is_better else o for n, o, is_better in pairs)

    def unpack_states(self, device_state: Any, step: int) -> list[State]:
        """Returns one `State` per network, labeled with `step`."""
        return [
            dataclasses.replace(s, step=step, slots=s.slots if step else {})
            for s in device_state
        ]

    def pack_states(self, states: Sequence[State]) -> Any:
        """Returns a device state of one `State` per network."""
        return tuple(states)
