"""A network's training step and its evaluation, as functions of values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.core.errors import UserError
from tf_lottery.masking.masked_optimizer import slots_by_name
from tf_lottery.training.backends import stateless_optimizer
from tf_lottery.training.distribution import replica_context
from tf_lottery.training.input_pipeline import Examples
from tf_lottery.training.objective import Objective, mode
from tf_lottery.training.state import State, assign, values

Augment = Callable[..., tf.Tensor]


class Values(NamedTuple):
    """All that a step changes: lists of tensors, in the variables' order."""

    weights: list[tf.Tensor]
    others: list[tf.Tensor]
    slots: list[tf.Tensor]


class FunctionalModel:
    """A model, its optimizer and its objective, as functions of values.

    Variables only define names, shapes and types. All values are passed in
    and returned, so the same function serves one network, a stack of
    networks, or another device.

    Args:
        model: A built Keras model.
        optimizer: As `keras.Model.compile` takes it.
        objective: Its loss and metrics. None: no step is taken.
        kernels: Paths of the kernels that carry masks.
        auto_scale_loss: As `keras.Model.compile` takes it.

    Attributes:
        has_states: Whether evaluation, too, passes states from one batch to
            the next, as those of stateful RNNs.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: Any,
        objective: Objective | None,
        kernels: Sequence[str] = (),
        auto_scale_loss: bool = True,
    ) -> None:
        self.model = model
        self._objective = objective
        self.variables = masking.variables_by_path(model)
        self._path = {id(v): path for path, v in self.variables.items()}
        self._weights = model.trainable_variables
        listed = {id(variable) for variable in model.variables}
        self._others = [
            *model.non_trainable_variables,
            # States of stateful RNNs, which Keras does not list.
            *(v for v in self.variables.values() if id(v) not in listed),
        ]
        self.optimizer = stateless_optimizer.from_keras(
            scaled(optimizer, model) if auto_scale_loss else optimizer
        )
        self.optimizer.build(self._weights)
        self.slots = slots_by_name(self.optimizer, self.variables)
        self._fresh = values(self.slots)
        self._at = {id(weight): i for i, weight in enumerate(self._weights)}
        self.masked = {
            path: self._at[id(self.variables[path])] for path in kernels
        }
        self.has_states = any(
            getattr(layer, "stateful", False)
            for layer in model._flatten_layers()
        )

    @property
    def objective(self) -> Objective:
        """The loss and the metrics."""
        if self._objective is None:
            raise UserError("This network has no loss.")
        return self._objective

    @property
    def paths(self) -> list[str]:
        """The paths of `Values.weights` and `Values.others`, in order."""
        return [self._path[id(v)] for v in (*self._weights, *self._others)]

    @property
    def state(self) -> State:
        """The state of model and optimizer as their variables stand."""
        slots = values(self.slots)
        step = int(self.optimizer.iterations)
        return State(step, values(self.variables), slots if step else {})

    @state.setter
    def state(self, state: State) -> None:
        assign(self.variables, state.weights)
        assign(self.slots, state.slots or self._fresh)
        masking.derive(self.model)

    def follow(self, state: State) -> None:
        """Makes what layers compute from variables that of a state.

        `Normalization` and its like read constants, which a compiled program
        takes from the model, not from values. Variables stay as they are.

        Args:
            state: Where training starts.
        """
        if masking.derives(self.model):
            before = values(self.variables)
            assign(self.variables, state.weights)
            masking.derive(self.model)
            assign(self.variables, before)

    def values_of(self, state: State) -> Values:
        """Returns a state as tensors."""
        slots = state.slots or self._fresh
        slot_of = {id(v): slots[name] for name, v in self.slots.items()}
        weights, others = (
            [tf.constant(state.weights[self._path[id(v)]]) for v in group]
            for group in (self._weights, self._others)
        )
        return Values(
            weights,
            others,
            [tf.constant(slot_of[id(v)]) for v in self.optimizer.variables],
        )

    def state_of(self, values: Values, step: int) -> State:
        """Returns tensors as a state."""
        pairs = [
            *zip(self._weights, values.weights, strict=True),
            *zip(self._others, values.others, strict=True),
        ]
        weights = {self._path[id(v)]: value.numpy() for v, value in pairs}
        slots = {
            id(v): value.numpy()
            for v, value in zip(
                self.optimizer.variables, values.slots, strict=True
            )
        }
        return State(
            step,
            {path: weights[path] for path in self.variables},
            {name: slots[id(v)] for name, v in self.slots.items()}
            if step
            else {},
        )

    def masks_of(self, masks: Mapping[str, np.ndarray]) -> list[tf.Tensor]:
        """Returns masks by path as tensors."""
        return [tf.constant(masks[path], tf.bool) for path in self.masked]

    def step(
        self,
        values: Values,
        totals: Sequence[tf.Tensor],
        masks: Sequence[tf.Tensor],
        examples: Examples,
    ) -> tuple[Values, list[tf.Tensor]]:
        """Returns the values, and what metrics count, after a training step.

        On several replicas, each with a part of the batch, gradients are
        summed first; the sums of what the replicas count are the counts.

        Gradients are masked before clipping and slots, weights after the
        update: with `where`, for 0 · inf is nan.

        Args:
            values: The values before it.
            totals: Values of the objective's variables before it.
            masks: Of each masked kernel, bool.
            examples: The batch.
        """
        with tf.GradientTape() as tape:
            tape.watch(values.weights)
            _, loss, others, totals = self._called(
                values, totals, examples, training=True
            )
            scaled = self._scale(loss, values.slots)
        gradients = replica_context.all_reduce_sum(
            [
                None if gradient is None else tf.convert_to_tensor(gradient)
                for gradient in tape.gradient(scaled, values.weights)
            ]
        )
        weights, slots = self._update(
            gradients, values.weights, values.slots, list(masks)
        )
        return Values(weights, others, slots), totals

    def evaluated(
        self, values: Values, totals: Sequence[tf.Tensor], examples: Examples
    ) -> tuple[Values, list[tf.Tensor]]:
        """Returns states and counts after evaluating a batch.

        Args:
            values: The network.
            totals: Values of the objective's variables before it.
            examples: The batch.
        """
        _, _, others, totals = self._called(
            values, totals, examples, training=False
        )
        return values._replace(others=others), totals

    def per_example(self, values: Values, examples: Examples) -> tf.Tensor:
        """Returns the deciding metric of each example, `[examples]`."""
        outputs, *_ = self._called(
            values, self.objective.zeros(), examples, training=False
        )
        return self.objective.per_example(examples, outputs)

    def _called(
        self,
        values: Values,
        totals: Sequence[tf.Tensor],
        examples: Examples,
        training: bool,
    ) -> tuple[Any, tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Returns outputs, loss, non-trainable variables and counts."""
        counters = self.objective.variables
        pairs = [
            *zip(self._weights, values.weights, strict=True),
            *zip(self._others, values.others, strict=True),
            *zip(counters, totals, strict=True),
        ]
        with keras.StatelessScope(
            state_mapping=pairs, collect_losses=True
        ) as scope:
            outputs = self.model(examples.x, **mode(self.model, training))
            loss = self.objective.loss(
                examples, outputs, self.model.losses, training
            )
            self.objective.count(examples, outputs, loss)
        others = [scope.get_current_value(v) for v in self._others]
        after = [scope.get_current_value(v) for v in counters]
        return (
            outputs,
            loss,
            _typed_as(values.others, others),
            _typed_as(totals, after),
        )

    # One pass over the weights, where XLA does not compile the whole step.
    @tf.function(jit_compile=True, autograph=False)
    def _update(
        self,
        gradients: list[Any],
        weights: list[tf.Tensor],
        slots: list[tf.Tensor],
        masks: list[tf.Tensor],
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Returns weights and slots after an update."""
        keep = dict(zip(self.masked.values(), masks, strict=True))
        new, after = self.optimizer.stateless_apply(
            slots, _kept(gradients, keep), weights
        )
        kept = self._kept_averages(after, keep)
        return _kept(new, keep), _typed_as(slots, kept)

    def _scale(self, loss: tf.Tensor, slots: Sequence[tf.Tensor]) -> tf.Tensor:
        pairs = list(zip(self.optimizer.variables, slots, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return self.optimizer.scale_loss(loss)

    def _kept_averages(
        self, slots: Sequence[tf.Tensor], keep: Mapping[int, tf.Tensor]
    ) -> list[tf.Tensor]:
        """Masks the moving averages: they were taken before the projection."""
        slots = list(slots)
        at = {id(v): i for i, v in enumerate(self.optimizer.variables)}
        for i, average in enumerate(
            stateless_optimizer.averages(self.optimizer)
        ):
            if i in keep:
                j = at[id(average)]
                slots[j] = _where(keep[i], slots[j])
        return slots


def _kept(arrays: Sequence[Any], keep: Mapping[int, tf.Tensor]) -> list[Any]:
    return [
        _where(keep[i], array) if i in keep and array is not None else array
        for i, array in enumerate(arrays)
    ]


def _typed_as(
    before: Sequence[tf.Tensor], after: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Casts what Keras widened: states of seed generators, counters."""
    pairs = zip(before, after, strict=True)
    return [tf.cast(new, old.dtype) for old, new in pairs]


def _where(mask: tf.Tensor, array: tf.Tensor) -> tf.Tensor:
    return tf.where(mask, array, tf.zeros_like(array))


def scaled(optimizer: Any, model: keras.Model) -> keras.optimizers.Optimizer:
    """Adds the loss scaling that float16 needs, as `compile` does."""
    found = keras.optimizers.get(optimizer)
    is_half = model.dtype_policy.compute_dtype == "float16" or any(
        layer.dtype_policy.compute_dtype == "float16"
        for layer in model._flatten_layers()
    )
    if is_half and not isinstance(found, keras.optimizers.LossScaleOptimizer):
        fresh = type(found).from_config(found.get_config())
        return keras.optimizers.LossScaleOptimizer(fresh)
    return found
