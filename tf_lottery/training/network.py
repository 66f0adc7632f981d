"""This module knows a network's step and its outputs as functions of values."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_lottery import masking
from tf_lottery.masking.optimizer import slots_by_name
from tf_lottery.training import factors, pure, replicas
from tf_lottery.training.state import State, assign, values

Augment = Callable[..., tf.Tensor]


class Values(NamedTuple):
    """All that a step changes: lists of tensors, in the variables' order."""

    weights: list[tf.Tensor]
    others: list[tf.Tensor]
    slots: list[tf.Tensor]


class Network:
    """A model, its optimizer and its loss, as functions of values.

    The model's and the optimizer's variables say only what there is; values
    go in and come out, so one network, many side by side, and one on another
    device are the same function.

    Args:
        model: A built Keras model.
        optimizer: As `keras.Model.compile` takes it.
        loss: From targets and outputs to a scalar. None: no step is taken.
        kernels: Paths of the kernels that carry masks.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: Any,
        loss: keras.losses.Loss | None,
        kernels: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.loss: Any = loss
        self.variables = masking.variables_by_path(model)
        self._path = {id(v): path for path, v in self.variables.items()}
        self._weights = model.trainable_variables
        self._others = model.non_trainable_variables
        self.optimizer = pure.pure(scaled(optimizer, model))
        self.optimizer.build(self._weights)
        self.slots = slots_by_name(self.optimizer, self.variables)
        self._fresh = values(self.slots)
        at = {id(weight): i for i, weight in enumerate(self._weights)}
        self._at = at
        self.masked = {path: at[id(self.variables[path])] for path in kernels}

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
        masks: Sequence[tf.Tensor],
        x: tf.Tensor,
        y: tf.Tensor,
    ) -> tuple[Values, tf.Tensor]:
        """Returns the values after one step on a batch, and the loss, scalar.

        On several replicas, each with a part of the batch, gradients are
        summed first; the sum of the losses that they return is the loss.

        Gradients are masked before clipping and slots, weights after the
        update: with `where`, for 0 · inf is nan.
        """
        with tf.GradientTape() as tape, factors.handed_over(tape) as products:
            tape.watch(values.weights)
            outputs, others, losses = self.model.stateless_call(
                values.weights,
                values.others,
                x,
                return_losses=True,
                **self.mode(training=True),
            )
            # Keras divides the loss of a part by the number of replicas.
            _, parts = replicas.part()
            penalties = [each / parts for each in losses]
            loss = tf.add_n([self.loss(y, outputs), *penalties])
            scaled = self._scale(loss, values.slots)
        gradients = factors.gradients(
            tape, scaled, values.weights, products, self._at
        )
        weights, slots = self._update(
            gradients, values.weights, values.slots, list(masks)
        )
        others = _typed_as(values.others, others)
        return Values(weights, others, slots), tf.cast(loss, tf.float32)

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

    def outputs(self, values: Values, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs for a batch, as in inference."""
        outputs, _ = self.model.stateless_call(
            values.weights, values.others, x, **self.mode(training=False)
        )
        return outputs

    def mode(self, training: bool) -> dict[str, bool]:
        """Returns the argument, if the model takes it, as in `fit`."""
        taken = inspect.signature(self.model.call).parameters
        return {"training": training} if "training" in taken else {}

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
        for i, average in enumerate(pure.averages(self.optimizer)):
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
